/* The two curves and the commonest types of events. */

const WIDE = 600, HIGH = 110, ABOVE = 12; // units of the drawing's view box
const FEWEST_POINTS = 60; // a curve that has just begun is not stretched over the whole width
const NICE_STEPS = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return NICE_STEPS.map((step) => step * power).find((step) => step >= value);
}

/* The first point that is shown: what was not known at the beginning is left out. */
function firstPoint() {
  const values = doc.flows.events_per_s, known = values.findIndex(isKnown);
  return Math.max(0, Math.min(known < 0 ? values.length : known, values.length - FEWEST_POINTS));
}

const charts = {};

/* One chart. The skeleton is made once; draw() writes the curves into it. */
class Chart {
  constructor(id, seriesCount) {
    this.figure = byId(id);
    this.box = this.figure.querySelector(".box");
    this.value = this.figure.querySelector(".val");
    this.labels = this.figure.querySelectorAll(".ylab");
    this.selected = null;
    const plot = this.figure.querySelector(".plot");
    this.outages = el("g");
    this.areas = el("path", {class: "area"});
    this.lines = Array.from({length: seriesCount}, (_, k) => el("path", {class: k ? "line second" : "line"}));
    this.cross = el("line", {class: "cross", visibility: "hidden", y1: 6, y2: HIGH + ABOVE});
    const grid = [0.5, 1].map((share) => el("line", {class: "grid", x1: 0, x2: WIDE, y1: this.y(share), y2: this.y(share)}));
    plot.replaceChildren(...grid, this.outages, this.areas, ...[...this.lines].reverse(), this.cross);
    for (const [key, value] of [["tabindex", "0"], ["aria-describedby", "chart-help"], ["data-chart", id]]) this.box.setAttribute(key, value);
  }

  x(index) { return ((index / Math.max(1, this.points - 1)) * WIDE).toFixed(1); }
  y(share) { return (HIGH + ABOVE - share * HIGH).toFixed(1); }

  /* series: lists of numbers, null where there is none. words(i): the text of point i. */
  draw(series, {least, unitText, words, summary}) {
    const first = firstPoint(), shown = series.map((values) => values.slice(first));
    this.points = shown[0].length;
    this.startMs = msOf(doc.flows.from) + first * doc.flows.step_s * 1000;
    this.words = (index) => words(index + first);
    const top = niceTop(Math.max(least, ...shown.flat().filter(isKnown)) * 1.04);
    [top, top / 2].forEach((value, k) => { this.labels[k].textContent = unitText(value); });
    this.lines.forEach((line, k) => line.setAttribute("d", shown[k] ? this.path(shown[k], top) : ""));
    this.areas.setAttribute("d", this.path(shown[0], top, true));
    this.outages.replaceChildren(...doc.flows.not_serving.map((outage) => this.outage(outage)));
    this.box.setAttribute("aria-label", summary);
    this.select(this.selected);
  }

  /* A path with a gap where a value is missing; closed at the bottom for an area. */
  path(values, top, isArea = false) {
    const runs = [[]];
    values.forEach((value, i) => (isKnown(value) ? runs.at(-1).push([this.x(i), this.y(value / top)]) : runs.push([])));
    const bottom = HIGH + ABOVE, close = (run) => (isArea ? `L${run.at(-1)[0]} ${bottom}L${run[0][0]} ${bottom}Z` : "");
    return runs.filter((run) => run.length > 1).map((run) => `M${run.map((point) => point.join(" ")).join("L")}${close(run)}`).join("");
  }

  outage({from, to}) {
    const lasts = (this.points - 1) * doc.flows.step_s * 1000;
    const place = (iso) => Math.max(0, Math.min(WIDE, ((msOf(iso) - this.startMs) / lasts) * WIDE));
    const begin = place(from), end = to ? place(to) : WIDE;
    return el("rect", {class: "out", x: begin.toFixed(1), y: ABOVE, width: Math.max(1.5, end - begin).toFixed(1), height: HIGH});
  }

  /* Show one point's value, or the present one for null. */
  select(index) {
    this.selected = index === null ? null : Math.max(0, Math.min(this.points - 1, index));
    const at = this.selected, place = this.x(at ?? 0);
    this.cross.setAttribute("x1", place);
    this.cross.setAttribute("x2", place);
    this.cross.setAttribute("visibility", at === null ? "hidden" : "visible");
    const when = at === null ? null : unit(`, ${timeOfDay(isoOf(this.startMs + at * doc.flows.step_s * 1000))} UTC`);
    put(this.value, this.words(at ?? this.points - 1), when);
  }

  /* Move the selection by a key; return whether the key was one of the chart's. */
  key(event) {
    const from = this.selected ?? this.points - 1, far = event.shiftKey ? 12 : 1;
    const to = {ArrowLeft: from - far, ArrowRight: from + far, Home: 0, End: this.points - 1, Escape: null};
    if (!(event.key in to)) return false;
    this.select(to[event.key]);
    byId("chart-said").textContent = this.value.textContent;
    return true;
  }
}

const mostKnown = (values) => Math.max(0, ...values.filter(isKnown));

function flows() {
  const {events_per_s: events, latency_s: {median, worst}, step_s: step} = doc.flows, isMany = doc.shards.length > 1;
  const known = events.filter(isKnown), average = known.reduce((sum, value) => sum + value, 0) / (known.length || 1);
  const covered = span((events.length - firstPoint()) * step);
  byId("flows-cap").textContent = `the last ${covered}`;
  for (const node of document.querySelectorAll(".chart .began")) node.textContent = `${covered} ago`;
  charts.rate.draw([events], {
    least: 1, unitText: (value) => rate(value).replace(/\.0$/, ""), words: (i) => [rate(events[i]), unit(" per s")],
    summary: `Events per second over ${covered}: now ${rate(events.at(-1))}, on average ${rate(average)}, at most ${rate(mostKnown(events))}.`,
  });
  charts.latency.draw(isMany ? [median, worst] : [median], {
    least: 0.05, unitText: millis, words: (i) => [millis(median[i]), unit(latencyNote(median[i], worst[i], isMany))],
    summary: `Heartbeat latency over ${covered}: now ${millis(median.at(-1))}, at most ${millis(mostKnown(worst))}.`,
  });
  byId("latency-key").hidden = !isMany;
  types();
}

const latencyNote = (median, worst, isMany) => (isKnown(median) ? (isMany ? ` median, ${millis(worst)} slowest` : "") : ` ${noLatency()}`);

/* Why there is no latency of a heartbeat. */
const noLatency = () => (doc.shards.some((shard) => shard.healthy) ? "none answered yet" : "no connection");

function types() {
  const most = Math.max(1, ...doc.event_types.map((one) => one.total));
  rows("type-rows", doc.event_types.map((one) => [[one.type], [bar(one.total / most, null, null)], [count(one.total), "num"], [rate(one.per_s), "num muted"]]));
}
