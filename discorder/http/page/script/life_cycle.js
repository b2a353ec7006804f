/* The diagram: the state that is lit, the last transitions, the numbers of all shards, and a dot that walks along each edge. */

const MOST_WALKING = 6; // dots at once; more of them wait, and share a dot with a number
const WALK_MS = {least: 650, most: 1400, perUnit: 2};
const LAST_STEPS = 5;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const diagram = () => byId("lc");
const edgeOf = (step) => diagram().querySelector(`.edge[data-to="${step.target}"][data-on~="${step.source}:${step.trigger}"]`);

/* The shard that the diagram follows; null for all of them. */
const followed = () => (doc.shards.length === 1 ? doc.shards[0].id : view.picked);
const steps = () => doc.transitions.filter((step) => followed() === null || step.shard === followed());

function lifeCycle() {
  const shard = doc.shards.find((one) => one.id === followed()) ?? null;
  for (const box of diagram().querySelectorAll(".state")) light(box, shard);
  lightEdges(shard);
  byId("lc-desc").textContent = description(shard);
  const total = doc.shards.length;
  byId("life-cap").textContent = !total ? NO_SHARD : !shard ? `all ${count(total)} shards; a number says how many are there` : total > 1 ? `shard ${shard.id}` : "one shard";
  byId("show-all").hidden = !shard || total === 1;
}

function light(box, shard) {
  const {state} = box.dataset, isCurrent = shard?.state === state;
  box.classList.toggle("current", isCurrent);
  box.classList.toggle("waits", isCurrent && (shard.parked || shard.paused));
  const time = box.querySelector(".clock");
  for (const key of Object.keys(time.dataset)) delete time.dataset[key];
  time.textContent = "";
  if (isCurrent) setTime(time, shard);
  const badge = box.querySelector(".count"), here = doc.verdict.shards.by_state[state] ?? 0;
  badge.classList.toggle("on", doc.shards.length > 1 && here > 0);
  badge.lastElementChild.textContent = count(here);
}

/* The time in the state; in Restarting the time that is left, if there is a plan. */
function setTime(node, shard) {
  if (shard.state === "Restarting" && shard.next) {
    Object.assign(node.dataset, {until: shard.next.at, before: "in ", late: "now"});
    node.textContent = dueText(node.dataset);
  } else {
    Object.assign(node.dataset, {since: shard.since, before: "", after: ""});
    node.textContent = ageText(node.dataset);
  }
}

/* The last transition is thick and says its trigger; the two before it are thinner. */
function lightEdges(shard) {
  for (const edge of diagram().querySelectorAll(".edge.lit,.edge.was")) edge.classList.remove("lit", "was");
  if (!shard) return;
  const [last, ...before] = steps().slice(0, 3);
  for (const step of before) edgeOf(step)?.classList.add("was");
  const edge = last && edgeOf(last);
  if (!edge) return;
  edge.classList.replace("was", "lit") || edge.classList.add("lit");
  edge.querySelector(".said").textContent = last.trigger;
}

function description(shard) {
  const [last] = steps();
  if (shard) return `Shard ${shard.id} is in ${shard.state}.${last ? ` It came from ${last.source} by ${last.trigger}.` : ""}`;
  const present = Object.entries(doc.verdict.shards.by_state).filter(([, number]) => number);
  return `${present.map(([state, number]) => `${number} in ${state}`).join(", ")}.`;
}

function lastSteps() {
  const isMany = followed() === null;
  put("walk", steps().slice(0, LAST_STEPS).map((step) => el("li", {},
    moment(step.at),
    el("span", {}, isMany ? el("span", {class: "who"}, el("span", {class: "vh"}, "Shard "), `${step.shard}`) : null, step.source, arrow(), strong(step.target)),
    el("span", {class: "spent"}, step.trigger),
    step.cause ? el("span", {class: "why"}, step.cause) : null)));
  byId("walk-title").textContent = isMany || doc.shards.length === 1 ? "Last transitions" : `Last transitions of shard ${followed()}`;
}

/* ---------- dots */

const waitingDots = new Map(); // edge -> number of transitions that have no dot yet
let walking = 0;

/* Let a dot walk along the edge of a transition. A transition that stays in its state makes the border of the state pulse. */
function walk(step) {
  if (calm.matches || document.hidden) return;
  const edge = edgeOf(step);
  if (edge) sendDot(edge, 1);
  else pulse(diagram().querySelector(`[data-state="${step.source}"]`));
}

function pulse(box) {
  if (!box) return;
  box.classList.remove("pulse");
  box.getBBox(); // restarts the animation
  box.classList.add("pulse");
}

function sendDot(edge, number) {
  if (walking >= MOST_WALKING) {
    waitingDots.set(edge, (waitingDots.get(edge) ?? 0) + number);
    return;
  }
  walking += 1;
  const dot = el("g", {class: `dot ${edge.classList[1]}`}, el("circle", {r: number > 1 ? 18 : 14}), number > 1 ? el("text", {}, `${number}`) : null);
  byId("lc-dots").append(dot);
  moveDot(dot, edge.querySelector("path"), () => {
    walking -= 1;
    const [next] = waitingDots;
    if (!next) return;
    waitingDots.delete(next[0]);
    sendDot(...next);
  });
}

function moveDot(dot, path, done) {
  const length = path.getTotalLength(), began = performance.now();
  const lasts = Math.max(WALK_MS.least, Math.min(WALK_MS.most, length * WALK_MS.perUnit));
  const ease = (k) => (k < 0.5 ? 2 * k * k : 1 - (2 - 2 * k) ** 2 / 2);
  const frame = () => {
    const share = Math.min(1, (performance.now() - began) / lasts), {x, y} = path.getPointAtLength(length * ease(share));
    dot.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    if (share < 1 && !document.hidden) {
      requestAnimationFrame(frame);
      return;
    }
    dot.remove();
    done();
  };
  frame();
}

/* Show the last three transitions of the shard that was chosen, one after the other. */
function replaySteps() {
  if (followed() === null || calm.matches || document.hidden) return;
  const edges = steps().slice(0, 3).reverse().map(edgeOf).filter(isShown), next = () => {
    const edge = edges.shift();
    if (edge) sendDotThen(edge, next);
  };
  next();
}

function sendDotThen(edge, then) {
  const dot = el("g", {class: `dot ${edge.classList[1]}`}, el("circle", {r: 14}));
  byId("lc-dots").append(dot);
  moveDot(dot, edge.querySelector("path"), then);
}
