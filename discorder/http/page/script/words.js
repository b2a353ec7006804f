/* Numbers, ages and times as text. The server's time counts, carried on by a monotonic clock: the reader's clock may be wrong. */

const clock = {at: 0, base: 0};
const now = () => clock.at + performance.now() - clock.base;
const msOf = (iso) => Date.parse(iso);
const isoOf = (ms) => new Date(ms).toISOString();

function setClock(iso) {
  clock.at = msOf(iso);
  clock.base = performance.now();
}

/* Control characters and marks that turn the direction of text around, as discorder/escapes.py has them. */
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

function escaped(character) {
  const code = character.charCodeAt(0);
  if (character === "\r") return "\\r";
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/* Parse JSON of the server, which writes control characters as escapes; they stay visible escapes. */
function parse(json) {
  if (!json.includes("\\u")) return JSON.parse(json);
  return JSON.parse(json, (_, value) => (typeof value === "string" ? value.replace(CONTROLS, escaped) : value));
}

const DASH = "–"; // not known
const NO_SHARD = "no shard is here";
const isKnown = (value) => value !== null && value !== undefined;
const count = (number) => (isKnown(number) ? Math.round(number).toLocaleString("en") : DASH);
const some = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const rate = (perSecond) => (isKnown(perSecond) && perSecond < 100 ? perSecond.toFixed(1) : count(perSecond));

function span(seconds) {
  if (!isKnown(seconds)) return DASH;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.floor(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const millis = (seconds) => (isKnown(seconds) && seconds < 1 ? `${Math.round(seconds * 1000)} ms` : span(seconds));

function bytes(number) {
  if (!isKnown(number)) return DASH;
  if (number < 1024) return `${number} B`;
  if (number < 1048576) return `${(number / 1024).toFixed(0)} KiB`;
  if (number < 1073741824) return `${(number / 1048576).toFixed(0)} MiB`;
  return `${(number / 1073741824).toFixed(2)} GiB`;
}

const percent = (ratio) => (isKnown(ratio) ? `${(ratio * 100).toFixed(0)} %` : DASH);
const timeOfDay = (iso) => iso.slice(11, 19);

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const RECENT_MS = 20 * 3600 * 1000; // an older time is ambiguous without its day

/* A time of day, with the day if it is not recent. */
function stamp(iso, until = 19) {
  if (now() - msOf(iso) < RECENT_MS) return iso.slice(11, until);
  return `${Number(iso.slice(8, 10))} ${MONTHS[Number(iso.slice(5, 7)) - 1]} ${iso.slice(11, 16)}`;
}

const ageText = (data) => data.before + span((now() - msOf(data.since)) / 1000) + data.after;

function dueText(data) {
  const seconds = (msOf(data.until) - now()) / 1000;
  return seconds <= 0.05 ? data.late : data.before + span(seconds);
}

const drainWidth = (data) => (Math.max(0, Math.min(1, (msOf(data.drain) - now()) / 1000 / Number(data.of))) * 100).toFixed(1);

/* Bring every age, countdown and draining bar up to date. Only texts that differ are written. */
function tick() {
  for (const node of document.querySelectorAll("[data-since],[data-until]")) {
    const text = node.dataset.until ? dueText(node.dataset) : ageText(node.dataset);
    if (node.textContent !== text) node.textContent = text;
  }
  for (const node of document.querySelectorAll("[data-drain]")) node.setAttribute("width", drainWidth(node.dataset));
}
