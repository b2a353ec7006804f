/* Publishers, the bus, the identify budget, sessions, the history, the log, and the foot of the page. */

const HISTORY_ROWS = 40;

function publishers() {
  rows("pub-rows", doc.publishers.map((one) => [
    [[strong(one.name), small(isKnown(one.process) ? `${one.kind}, process ${one.process}` : one.kind)]],
    [stateMark(one.state, isLate(one)), "tight"],
    [one.required ? "required" : "best effort", "tight"],
    [millis(one.lag_s), isLate(one) ? "num bad" : "num"],
    [one.queued_events ? [count(one.queued_events), small(bytes(one.queued_bytes))] : count(one.queued_events), "num"],
    [rate(one.per_s), "num"],
    [count(one.accepted), "num"],
    [one.dropped ? [el("span", {class: "bad"}, count(one.dropped)), small(`in ${some(one.gaps, "gap")}`)] : count(one.dropped), "num"],
    [one.last_error ? [one.last_error, small(some(one.failures, "failure"))] : "", one.last_error ? null : "none"],
  ]));
}

const topicWords = (topic) => (topic === "" ? "everything" : topic.endsWith("_") ? `${topic}*` : topic);

function bus() {
  const {bus: it} = doc;
  byId("bus").hidden = !it;
  if (!it) return;
  byId("bus-cap").textContent = `${count(it.connections.length)} connected at ${it.bind.replace("tcp://", "")}`;
  rows("bus-rows", it.connections.map((one) => [[one.peer], [since(one.since), "num"]]));
  byId("bus-table").hidden = !it.connections.length;
  put("bus-topics", it.subscriptions.map((one) => el("li", {}, topicWords(one.topic), one.count > 1 ? ` × ${one.count}` : "")));
  byId("bus-topics-cap").textContent = it.subscriptions.length ? "Subscribed to, by all of them together" : "Nobody has subscribed to anything";
  put("bus-pairs",
    pair("Replay reaches back", span(it.ring.span_s), `${bytes(it.ring.bytes)} of ${bytes(it.ring.bytes_limit)}`),
    pair("Replays", count(it.replays_total), `${count(it.replays_running)} running`),
    pair("Commands", count(it.commands_total), some(it.refused_keys_total, "refused key")));
}

/* ---------- budget and sessions */

function budget() {
  const {budget: it} = doc, reserved = Math.min(it.reserve ?? 0, it.remaining ?? 0), free = (it.remaining ?? 0) - reserved;
  put("budget-meter", it.total ? [meter(it, free, reserved), meterKey(it, reserved)] : el("p", {class: "muted"}, "Not looked up yet."));
  const others = it.foreign ? el("span", {class: "bad"}, `${count(it.foreign)} by another process`) : "none by others";
  put("budget-pairs",
    pair("Renewed", it.reset_at ? until(it.reset_at, "in ", "due now") : DASH, it.reset_at ? `${timeOfDay(it.reset_at)} UTC` : null),
    pair("Spent here", count(it.spent_here), others),
    pair("Waiting", count(it.waiting), it.last_turn_at ? until(it.last_turn_at, "the last in ", "the last now") : "no shard"),
    pair("A cold start costs", count(it.cold_start.identifies), `and takes ${span(it.cold_start.seconds)}`));
}

function meter(it, free, reserved) {
  const share = (number) => `${((number / it.total) * 100).toFixed(1)}%`;
  const label = `${it.remaining} of ${it.total} IDENTIFYs are left, ${it.reserve} of them in reserve`;
  return el("svg", {class: "meter", width: "100%", height: 22, role: "img", "aria-label": label},
    el("rect", {class: "left", width: share(free), height: 22}),
    el("rect", {class: "reserve", x: share(free), width: share(reserved), height: 22}));
}

function meterKey(it, reserved) {
  const key = (kind, words) => el("span", {class: "key"}, kind ? el("svg", {viewBox: "0 0 22 8", "aria-hidden": "true"}, el("rect", {class: kind, width: 22, height: 8})) : null, words);
  return el("p", {class: "keys meter-key"}, key("left", `${count(it.spendable)} may be spent`), key("reserve", `${count(reserved)} in reserve`), key(null, `${count(it.total - it.remaining)} of ${count(it.total)} used`));
}

/* A path that a narrow place breaks between folders. */
const pathText = (path) => path.match(/[^/]*\/|[^/]+/g).map((piece) => el("span", {class: "piece"}, piece));

function sessions() {
  const {sessions: it, store, totals} = doc;
  put("session-pairs",
    pair("Held", count(it.held), `of ${count(doc.shards.length)}`),
    pair("Stored", count(it.stored), it.last_saved_at ? since(it.last_saved_at, "saved ", " ago") : "not saved yet"),
    pair("Store", stateMark(store.state), store.reason || pathText(store.path || "in memory")),
    pair("Resumed", count(totals.resumes), "since start"),
    pair("Restarted", count(totals.restarts), "since start"),
    pair("Lost", count(totals.gaps), totals.gaps ? `${totals.gaps === 1 ? "gap" : "gaps"}, announced to readers` : "no gap"));
}

/* ---------- history, log, foot */

function history() {
  const {picked} = view, list = doc.transitions.filter((step) => picked === null || step.shard === picked).slice(0, HISTORY_ROWS);
  rows("history-rows", list.map((step) => Object.assign([
    [moment(step.at), "tight"],
    [`${step.shard}`, "num"],
    [[step.source, arrow(), strong(step.target)], "tight"],
    [step.trigger, "tight"],
    [step.cause ?? "", step.cause ? null : "none"],
    [millis(step.spent_s), "num"],
  ], {kind: view.newest !== null && msOf(step.at) > view.newest ? "new" : null})));
  view.newest = doc.transitions.length ? msOf(doc.transitions[0].at) : view.newest;
  byId("history-cap").textContent = picked === null ? "newest first" : `of shard ${picked}, newest first`;
}

const LOG_LOOKS = {DEBUG: ["stop"], INFO: ["stop"], WARNING: ["park", "note"]};

function fieldText([key, value]) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return ` ${key}=${typeof value === "string" && /\s/.test(text) ? JSON.stringify(text) : text}`;
}

function log() {
  put("log-rows", doc.log.map((line) => {
    const [tone, shape] = LOG_LOOKS[line.level] ?? ["bad", "alert"], fields = Object.entries(line.fields).map(fieldText).join("");
    return el("li", {}, el("time", {datetime: line.at}, stamp(line.at, 23)), el("span", {class: `with ${tone}`}, shape ? icon(shape) : null, line.level), el("span", {class: "m"}, line.message, el("span", {class: "f"}, fields)));
  }));
}

function memberText(one) {
  const use = one.memory_bytes ? `, ${bytes(one.memory_bytes)}, ${percent(one.cpu_ratio)} of a CPU` : "";
  return `process ${one.number}: ${one.headline}${use}`;
}

function foot() {
  const it = doc.process, files = it.open_files;
  const several = it.processes.length ? ` · ${it.processes.length} processes` : "";
  put("where", `${it.host} · ${it.version}${several} · up `, since(it.started_at));
  const parts = [`Discorder ${it.version}`, `Python ${it.python}`, `process ${it.pid} on ${it.host}`, `${bytes(it.memory_bytes)} memory`,
    `${percent(it.cpu_ratio)} of a CPU`, `${count(files.used)} of ${count(files.limit)} files`, it.compression, "all times UTC",
    ...it.processes.map(memberText)];
  put("foot", parts.map((part) => el("span", {}, part)));
}
