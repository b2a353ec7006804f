/* The verdict with its answers, the notes, the vital signs, and the table of the shards that do not serve. */

const SILENCE_MS = 5000; // without an event for so long, the page no longer knows
const LATE_S = 10; // a publisher further behind than this is late
const MOST_PROBLEMS = 24; // the tiles show the others

const VERDICT_ICONS = {well: "check", impaired: "alert", down: "alert", starting: "dots", stopping: "square", unknown: "ask"};
const TAB_SHAPES = {
  well: ["#1a7f37", '<circle cx="8" cy="8" r="7"/>'],
  impaired: ["#cf222e", '<path d="M8 1 15.5 15H.5Z"/>'],
  down: ["#cf222e", '<path d="M8 1 15.5 15H.5Z"/>'],
  starting: ["#0969da", '<path d="M8 1a7 7 0 1 1-7 7h7Z"/>'],
  stopping: ["#717a85", '<path d="M2 2h12v12H2Z"/>'],
  unknown: ["#7d8590", '<path d="M1 6h14v4H1Z"/>'],
};

const isSilent = () => performance.now() - view.heardAt > SILENCE_MS;
const levelShown = () => (isSilent() ? "unknown" : doc.verdict.level);

function titleText(level) {
  const {ready, total} = doc.verdict.shards;
  const words = {well: "Well", starting: `Starting ${ready}/${total}`, stopping: "Stopping", unknown: "Not known"};
  return `${words[level] ?? `Not well ${ready}/${total}`} · Discorder`;
}

function verdict() {
  const level = levelShown(), given = doc.verdict, isKnownNow = level !== "unknown";
  const headline = isKnownNow ? given.headline : "Not known: no news from the control plane";
  const detail = isKnownNow ? given.detail : `What stands below is of ${timeOfDay(doc.at)} UTC. The page keeps trying; if it stays like this, look at the process.`;
  byId("verdict").dataset.level = level;
  byId("main").classList.toggle("stale", !isKnownNow);
  setIcon("verdict-icon", VERDICT_ICONS[level]);
  byId("headline").textContent = headline;
  put("lead", detail, level === "well" ? [" ", since(given.since, "For ", " now.")] : null);
  speak(level, `${headline}. ${detail}`);
  document.title = titleText(level);
  const [colour, shape] = TAB_SHAPES[level];
  const sign = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><g fill="${colour}">${shape}</g></svg>`;
  byId("tab-icon").href = `data:image/svg+xml,${encodeURIComponent(sign)}`;
  answers();
}

/* Tell screen readers of a change of the level. The figures in the headline may change every second. */
function speak(level, words) {
  if (view.spokenLevel !== null && view.spokenLevel !== level) byId("said").textContent = words;
  view.spokenLevel = level;
}

function answers() {
  const {ready, total, eta_s: eta} = doc.progress, isStarting = doc.verdict.level === "starting" && total > 1;
  put("progress", isStarting ? bar(ready / total, "bar", `${ready} of ${total} shards ready`) : null);
  const only = doc.shards.length === 1 && !doc.shards[0].healthy ? doc.shards[0] : null;
  put("answers", only ? answersOfOne(only) : isStarting ? answersOfStart(eta) : null);
  byId("answers").hidden = !byId("answers").children.length;
}

function answersOfOne(shard) {
  const began = doc.transitions.find((step) => step.source === "Ready")?.cause;
  const {next} = shard, drain = next?.backoff_s ? el("rect", {height: 1, "data-drain": next.at, "data-of": next.backoff_s}) : null;
  drain?.setAttribute("width", drainWidth(drain.dataset));
  const backoff = drain && el("svg", {class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true"}, drain);
  return [
    isKnown(shard.cause) && pair("Why", shard.cause, began && began !== shard.cause ? `It began with: ${began}` : null),
    pair("Since", since(doc.verdict.since), `${timeOfDay(doc.verdict.since)} UTC, ${look(shard).word} for now`),
    el("div", {}, el("dt", {}, "What happens next"), el("dd", {}, next ? [next.text, " ", whenNext(next), nextDetail(next), backoff] : NOTHING_NEXT)),
  ];
}

function answersOfStart(eta) {
  const {waiting} = doc.budget;
  return [
    pair("Still to identify", count(waiting), waiting ? "shards wait for their turn" : "all IDENTIFYs are sent"),
    pair("Since", since(doc.verdict.since), `${timeOfDay(doc.verdict.since)} UTC`),
    pair("All ready", isKnown(eta) ? until(isoOf(msOf(doc.at) + eta * 1000), "in about ", "any moment") : "not known yet", "by the identify buckets"),
  ];
}

function notes() {
  put("notes", doc.notes.map((note) => el("li", {}, icon("note"), el("p", {}, strong(`${note.title}. `), note.text), since(note.since, "for "))));
  byId("notes-part").hidden = !doc.notes.length;
}

const isLate = (publisher) => publisher.lag_s > LATE_S;
const isTroubled = (publisher) => !GOOD_STATES.has(publisher.state) || isLate(publisher);

function vitals() {
  const {ready, total} = doc.verdict.shards, isOne = total === 1, {budget, process} = doc;
  const missing = total - ready, isBad = missing > 0 && doc.verdict.level !== "starting";
  const who = isOne ? look(doc.shards[0]).word : missing ? `${count(missing)} ${missing === 1 ? "is" : "are"} not` : "all of them";
  put("vitals-list",
    pair("Shards serving", total ? [el("span", {class: isBad ? "bad" : null}, count(ready)), unit(` of ${count(total)}`)] : DASH, total ? who : NO_SHARD),
    pair("Events", [rate(doc.flows.events_per_s.at(-1)), unit(" per s")], `${count(doc.totals.events)} since start`),
    heartbeatVital(isOne),
    publishersVital(),
    pair("IDENTIFYs left", [count(budget.remaining), unit(` of ${count(budget.total)}`)], budget.spendable === 0 ? "none may be spent" : `${count(budget.spendable)} may be spent`),
    pair("Event loop", millis(process.loop_lag_s.now), `lag; worst ${millis(process.loop_lag_s.worst)}`));
}

function heartbeatVital(isOne) {
  const latencies = doc.shards.map((shard) => shard.heartbeat.latency_s).filter(isKnown).sort((a, b) => a - b);
  if (!latencies.length) return pair("Heartbeat", DASH, noLatency());
  const answered = isOne ? doc.shards[0].moments.ack : null;
  return pair("Heartbeat", millis(latencies[latencies.length >> 1]), answered ? since(answered, "answered ", " ago") : `slowest ${millis(latencies.at(-1))}`);
}

function publishersVital() {
  const troubled = doc.publishers.filter(isTroubled), [first] = troubled;
  if (!first) return pair("Publishers", [count(doc.publishers.length), unit(" in time")], `${some(doc.totals.dropped, "event")} dropped`);
  const how = isLate(first) ? `${span(first.lag_s)} behind` : first.state;
  return pair("Publishers", [el("span", {class: "bad"}, count(troubled.length)), unit(` of ${doc.publishers.length} in trouble`)], `${first.name}: ${how}`);
}

function problems() {
  const list = doc.shards.length > 1 && doc.verdict.level !== "starting" ? worstFirst(doc.shards.filter((shard) => !shard.healthy)) : [];
  byId("problems").hidden = !list.length;
  rows("problem-rows", list.slice(0, MOST_PROBLEMS).map((shard) => [
    [el("button", {type: "button", class: "link", "data-key": `to-${shard.id}`, "data-pick": shard.id}, `${shard.id}`), "tight"],
    [marked(shard), "tight"],
    [since(troubledSince(shard)), "tight"],
    [shard.cause ?? DASH],
    [shard.next ? [shard.next.text, nextDetail(shard.next)] : NOTHING_NEXT],
    [shard.next ? whenNext(shard.next) : DASH, "num"],
  ]));
  const beyond = list.length - MOST_PROBLEMS;
  byId("problem-more").hidden = beyond <= 0;
  byId("problem-more").textContent = beyond > 0 ? `and ${count(beyond)} more, below` : "";
}

/* A silent shard has been in Ready for long; its trouble began with the heartbeat that is unanswered. */
const troubledSince = (shard) => (shard.state === "Ready" && shard.moments.unanswered_beat) || shard.since;
