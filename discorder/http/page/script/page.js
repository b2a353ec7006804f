/* The page: what it knows, how events change it, and what hands can do. Every sentence and judgement comes from the server. */

const MOST_TRANSITIONS = 256, MOST_LOG_LINES = 60;
const RETRY_MS = 3000; // after the browser has given the stream up
const TICK_MS = 100;

let doc = parse(byId("status").textContent);
const view = {picked: null, filter: "all", query: "", isFrozen: false, held: 0, heardAt: performance.now(), hasHeard: false, wasSilent: false, spokenLevel: null, newest: null};

/* ---------- events of the stream */

function load(status) {
  doc = status;
  setClock(doc.at);
  doc.shards.forEach((shard) => setMoments(shard));
  if (!doc.shards.some((shard) => shard.id === view.picked)) view.picked = null;
  for (const render of [verdict, notes, vitals, problems, flows, lifeCycle, lastSteps, shards, publishers, bots, bus, budget, sessions, history, log, foot, streamState]) render();
}

/* Ages are true at the moment of their document. As moments they can be counted on. */
function setMoments(shard) {
  shard.moments = {};
  for (const [key, age] of Object.entries(shard.ages_s)) shard.moments[key] = isKnown(age) ? isoOf(msOf(doc.at) - age * 1000) : null;
}

function changeShards(changed) {
  for (const shard of changed) {
    setMoments(shard);
    const index = doc.shards.findIndex((one) => one.id === shard.id);
    if (index >= 0) doc.shards[index] = shard;
  }
  const {by_state: byState} = doc.verdict.shards;
  for (const state of Object.keys(byState)) byState[state] = 0;
  for (const shard of doc.shards) byState[shard.state] = (byState[shard.state] ?? 0) + 1;
  doc.verdict.shards.ready = doc.shards.filter((shard) => shard.healthy).length;
  for (const render of [verdict, vitals, problems, lifeCycle, shards]) render();
}

function addTransition(step) {
  doc.transitions = [step, ...doc.transitions].slice(0, MOST_TRANSITIONS);
  walk(step);
  for (const render of [lifeCycle, lastSteps, history]) render();
}

const addLog = (lines) => { doc.log = [...lines, ...doc.log].slice(0, MOST_LOG_LINES); };

const HANDLERS = {
  status: load,
  verdict: (part) => { Object.assign(doc, {verdict: part.verdict, progress: part.progress, notes: part.notes}); verdict(); notes(); vitals(); problems(); },
  shards: (part) => changeShards(part.shards),
  transition: (part) => addTransition(part.transition),
  flow: (part) => { addFlow(part); flows(); vitals(); foot(); },
  publishers: (part) => { Object.assign(doc, {publishers: part.publishers, bus: part.bus}); publishers(); bus(); vitals(); },
  facade: (part) => { doc.facade = part.facade; bots(); },
  budget: (part) => { Object.assign(doc, {budget: part.budget, store: part.store, sessions: part.sessions, totals: part.totals}); budget(); sessions(); vitals(); },
  log: (part) => { addLog(part.log); log(); },
  beat: () => {},
};

function addFlow(part) {
  const {flows: it} = doc, {median, worst} = it.latency_s;
  for (const [values, value] of [[it.events_per_s, part.events_per_s], [median, part.median], [worst, part.worst]]) {
    if (part.append) {
      values.push(value);
      values.shift();
    } else values[values.length - 1] = value;
  }
  Object.assign(it, {from: part.from, step_s: part.step_s, not_serving: part.not_serving});
  Object.assign(doc, {event_types: part.event_types, process: part.process});
  doc.totals.events = part.total;
}

function receive(kind, part) {
  view.heardAt = performance.now();
  view.hasHeard = true;
  if (view.isFrozen) {
    view.held += 1;
    streamState();
    return;
  }
  doc.at = part.at;
  setClock(part.at);
  HANDLERS[kind](part);
  silence();
}

/* ---------- the stream */

let stream = null;

/* Open the stream. The browser reconnects by itself, and the server begins again with a whole document. */
function connect() {
  stream?.close();
  stream = new EventSource("/events");
  for (const kind of Object.keys(HANDLERS)) stream.addEventListener(kind, (event) => receive(kind, parse(event.data)));
}

function reconnect() {
  if (stream.readyState === EventSource.CLOSED) connect(); // the server refused; browsers do not try again then
}

function silence() {
  if (isSilent() === view.wasSilent) return;
  view.wasSilent = isSilent();
  verdict();
}

function streamState() {
  const [tone, shape, words] = isSilent() ? ["bad", "ask", `No news for ${span((performance.now() - view.heardAt) / 1000)}`]
    : view.isFrozen ? ["park", "pause", `Frozen, ${view.held} held`]
    : !view.hasHeard ? ["stop", "dots", "Connecting"] : ["good", "check", `Live · ${timeOfDay(isoOf(now()))} UTC`];
  byId("live").className = `live with ${tone}`;
  setIcon("live-icon", shape);
  if (byId("live-text").textContent !== words) byId("live-text").textContent = words;
}

/* Hold every update; going on begins with a whole document, so that nothing is missing and nothing is there twice. */
function freezeOrGoOn() {
  view.isFrozen = !view.isFrozen;
  view.held = 0;
  byId("freeze").textContent = view.isFrozen ? "Go on" : "Freeze";
  byId("freeze").setAttribute("aria-pressed", `${view.isFrozen}`);
  if (!view.isFrozen) connect();
  streamState();
}

/* ---------- pointer */

function pick(id) {
  view.picked = id;
  for (const render of [lifeCycle, lastSteps, shards, history]) render();
  replaySteps();
}

function letGo() {
  const before = view.picked;
  pick(null);
  (document.querySelector(`.tile[data-pick="${before}"]`) ?? byId("shards-title")).focus();
}

function pickBy(button) {
  const id = Number(button.dataset.pick), isTile = button.classList.contains("tile");
  pick(isTile && view.picked === id ? null : id);
  if (!isTile) byId("life").scrollIntoView({behavior: calm.matches ? "auto" : "smooth"});
}

function openLabels() {
  diagram().classList.add("full");
  byId("lc-big").append(diagram());
  byId("lc-dialog").showModal();
}

function closeLabels() {
  diagram().classList.remove("full");
  byId("lc-home").prepend(diagram());
  byId("labels").focus();
}

function showAll() {
  byId("tiles-ready").classList.remove("cut");
  byId("more").hidden = true;
}

const CLICKS = {"show-all": letGo, labels: openLabels, "labels-close": () => byId("lc-dialog").close(), more: showAll, freeze: freezeOrGoOn};

document.addEventListener("click", ({target}) => {
  const button = target.closest("button");
  if (!button) return;
  if (button.dataset.pick) pickBy(button);
  else if ("unpick" in button.dataset) letGo();
  else CLICKS[button.id]?.();
});
byId("lc-dialog").addEventListener("close", closeLabels);
document.addEventListener("change", ({target}) => {
  if (target.name !== "show") return;
  view.filter = target.value;
  shards();
});
byId("find").addEventListener("input", ({target}) => {
  view.query = target.value;
  tiles();
});

const chartAt = (target) => Object.values(charts).find((chart) => chart.box === target.closest?.("[data-chart]"));

document.addEventListener("pointermove", (event) => {
  const pointed = chartAt(event.target);
  for (const chart of Object.values(charts)) if (chart !== pointed && chart.selected !== null && chart.box !== document.activeElement) chart.select(null);
  if (!pointed) return;
  const {left, width} = pointed.figure.querySelector(".plot").getBoundingClientRect();
  pointed.select(Math.round(((event.clientX - left) / width) * (pointed.points - 1)));
});

/* ---------- keyboard */

function tileKey(event) {
  const to = event.target.classList?.contains("tile") && tileByKey(event.key, event.target);
  if (!to) return false;
  event.target.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
  return true;
}

function findKey(event) {
  if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || byId("finder").hidden || byId("lc-dialog").open) return false;
  byId("find").focus();
  return true;
}

function escapeKey(event) {
  if (event.key !== "Escape" || view.picked === null || byId("lc-dialog").open) return false;
  letGo();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (chartAt(event.target)?.key(event) || tileKey(event) || findKey(event) || escapeKey(event)) event.preventDefault();
});

/* ---------- begin */

charts.rate = new Chart("c-rate", 1);
charts.latency = new Chart("c-latency", 2);
for (const node of document.querySelectorAll("[data-js]")) node.hidden = false;
load(doc);
connect();
setInterval(reconnect, RETRY_MS);
setInterval(() => {
  streamState();
  silence();
  if (!view.isFrozen) tick();
}, TICK_MS);
