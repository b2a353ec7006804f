/* How a shard looks and in which order shards stand. Each state has a shape and a word besides its colour. */

const LOOKS = {
  Disconnected: ["ring", "wait"],
  Connecting: ["dots", "wait"],
  Identifying: ["dots", "wait"],
  Resuming: ["loop", "rec"],
  Ready: ["check", "good"],
  Unhealthy: ["alert", "bad"],
  Restarting: ["loop", "rec"],
  Stopping: ["square", "wait"],
  Exited: ["square", "bad"],
};

function look(shard) {
  if (shard.paused) return {word: "Paused", shape: "pause", tone: "park"};
  if (shard.parked) return {word: "Parked", shape: "pause", tone: "park"};
  if (shard.state === "Ready" && !shard.healthy) return {word: "Silent", shape: "alert", tone: "bad"};
  const [shape, tone] = LOOKS[shard.state] ?? ["ring", "wait"];
  return {word: shard.state, shape, tone};
}

const marked = (shard) => el("span", {class: `with ${look(shard).tone}`}, icon(look(shard).shape), strong(look(shard).word));

/* Worst first: gone for good, parked or paused, failing again and again, away, waiting for its first turn, serving. */
const EXITED = 0, HELD = 1, FAILING = 2, AWAY = 3, WAITING = 4, SERVING = 9;

function rank(shard) {
  if (shard.state === "Exited") return EXITED;
  if (shard.parked || shard.paused) return HELD;
  if (shard.healthy) return SERVING;
  if (shard.attempt >= 3) return FAILING;
  const isFirst = shard.generation <= 1 && ["Disconnected", "Connecting"].includes(shard.state);
  return isFirst || shard.state === "Identifying" ? WAITING : AWAY;
}

/* The time by which shards of one rank are ordered: those that wait by their turn, those that are away by how long. */
function placeInRank(shard) {
  if (shard.healthy) return 0;
  return msOf(rank(shard) === WAITING && shard.next ? shard.next.at : shard.since);
}

const worstFirst = (shards) => [...shards].sort((a, b) => rank(a) - rank(b) || placeInRank(a) - placeInRank(b) || a.id - b.id);

/* A plan is kept, a deadline ends the waiting, an estimate is neither. */
const BEFORE_NEXT = {planned: "in ", deadline: "within ", estimate: "in about "};
const whenNext = (next) => until(next.at, BEFORE_NEXT[next.kind], next.kind === "planned" ? "now" : "any moment");
const NOTHING_NEXT = "Nothing by itself";

function nextDetail(next) {
  const parts = [
    isKnown(next.backoff_s) ? `back-off ${span(next.backoff_s)}` : null,
    next.attempt ? `attempt ${next.attempt}` : null,
    next.identifies ? `costs ${next.identifies} IDENTIFY` : next.purpose === "resume" ? "costs no IDENTIFY" : null,
  ];
  return small(parts.filter(isShown).join(" · "));
}

/* States of publishers and of the store. */
const GOOD_STATES = new Set(["healthy", "ok"]);
const PASSING_STATES = new Set(["opening", "probing", "closed", "in memory", "set aside"]);

function stateMark(state, isLate = false) {
  const [tone, shape] = GOOD_STATES.has(state) && !isLate ? ["good", "check"] : PASSING_STATES.has(state) ? ["rec", "loop"] : ["bad", "alert"];
  return el("span", {class: `with ${tone}`}, icon(shape), strong(state));
}
