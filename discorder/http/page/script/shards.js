/* The tiles of all shards with filter and search, and the facts of one shard. */

const SHORT_NEXT = {hello: "Hello", resumed: "RESUMED", ready: "READY", identify: "IDENTIFY", beat: "ACK", verdict: "verdict", look_up: "look-up", stop: "close", process: "start"};
const FEW = 56; // serving shards that a narrow screen shows before "Show all"

function shards() {
  const isMany = doc.shards.length > 1, shard = isMany ? doc.shards.find((one) => one.id === view.picked) : doc.shards[0];
  for (const id of ["filters", "finder", "tile-box"]) byId(id).hidden = !isMany;
  byId("life-grid").classList.toggle("single", !isMany);
  byId("main").classList.toggle("single-shard", !isMany);
  byId("shards-title").textContent = doc.shards.length === 1 ? "The shard" : "Shards";
  byId("shards-cap").textContent = isMany ? `${count(doc.verdict.shards.ready)} of ${count(doc.shards.length)} serve, worst first` : shard ? `shard ${shard.id}` : NO_SHARD;
  onePanel(shard, isMany);
  if (!isMany) return;
  chips();
  tiles();
}

function onePanel(shard, isMany) {
  byId("picked").hidden = !shard;
  byId("picked").classList.toggle("framed", isMany);
  put("picked", shard ? [isMany ? panelHead(shard) : null, el("dl", {class: "one"}, facts(shard), isMany ? nextFact(shard) : null)] : null);
}

const panelHead = (shard) => el("div", {class: "head"},
  el("h3", {}, `Shard ${shard.id}`),
  el("span", {class: "cap"}, shard.owner ? `on member ${shard.owner}` : ""),
  el("button", {type: "button", class: "btn", "data-key": "unpick", "data-unpick": true}, "Close"));

const wide = (name, ...content) => el("div", {class: "wide"}, el("dt", {}, name), el("dd", {}, ...content));
const nextFact = (shard) => (shard.next ? wide("Next", shard.next.text, " ", whenNext(shard.next)) : null);

function facts(shard) {
  const ago = (key, none) => (shard.moments[key] ? since(shard.moments[key], "", " ago") : none);
  const mark = look(shard), {counts} = shard;
  return [
    pair("State", el("span", {class: `with ${mark.tone}`}, icon(mark.shape), mark.word), since(shard.since, "for ")),
    pair("Last frame", ago("frame", "no socket")),
    pair("Last ACK", ago("ack", DASH), shard.heartbeat.interval_s && shard.moments.frame ? `due every ${shard.heartbeat.interval_s} s` : null),
    pair("Last event", ago("dispatch", DASH)),
    pair("Latency", millis(shard.heartbeat.latency_s)),
    pair("Events", shard.state === "Ready" ? `${rate(shard.events_per_s)} per s` : "none"),
    pair("Session", shard.session ?? "none", isKnown(shard.seq) ? `sequence ${count(shard.seq)}` : null),
    pair("Connection", `no. ${count(shard.generation)}`, `${some(counts.restarts, "restart")}, ${some(counts.resumes, "resume")}, ${some(counts.identifies, "IDENTIFY")}`),
    pair("Guilds", count(shard.guilds)),
    shard.cause && !shard.healthy ? wide("Why", shard.cause) : null,
  ];
}

/* ---------- filter and search */

function isFound(shard, query) {
  if (!query) return true;
  if (/^\d{1,5}$/.test(query)) return `${shard.id}`.startsWith(query);
  if (/^\d{15,20}$/.test(query)) return shard.id === shardOfGuild(query);
  return look(shard).word.toLowerCase().startsWith(query.toLowerCase());
}

/* Discord's rule: the time part of a guild's id, modulo the number of the bot's shards. */
const shardOfGuild = (guild) => Number((BigInt(guild) >> 22n) % BigInt(doc.verdict.shards.total));

function passesFilter(shard) {
  if (view.filter === "all") return true;
  return view.filter === "ill" ? !shard.healthy : view.filter === "ready" ? shard.healthy : look(shard).word === view.filter;
}

function chips() {
  const ill = doc.shards.filter((shard) => !shard.healthy), words = new Map();
  for (const shard of ill) words.set(look(shard).word, (words.get(look(shard).word) ?? 0) + 1);
  const byNumber = [...words].sort((a, b) => b[1] - a[1]).map(([word, number]) => [word, word, number]);
  const offered = [["all", "All", doc.shards.length], ["ill", "Not serving", ill.length], ["ready", "Serving", doc.shards.length - ill.length], ...byNumber];
  if (!offered.some(([key]) => key === view.filter)) view.filter = "all";
  put("chips", el("legend", {class: "vh"}, "Show"), offered.map(([key, name, number]) => el("label", {class: "chip"},
    el("input", {type: "radio", name: "show", value: key, checked: key === view.filter, "data-key": `chip-${key}`}),
    el("span", {}, name, el("b", {}, count(number))))));
}

/* ---------- tiles */

const tileItems = new Map(); // shard id -> its <li>, which is kept from one update to the next

function tiles() {
  const query = view.query.trim(), shown = worstFirst(doc.shards.filter((shard) => isFound(shard, query) && passesFilter(shard)));
  const focused = document.activeElement?.classList.contains("tile") ? document.activeElement : null;
  const ill = shown.filter((shard) => !shard.healthy), fine = shown.filter((shard) => shard.healthy);
  arrange(byId("tiles-ill"), ill.map((shard) => tileItem(shard, false)));
  arrange(byId("tiles-ready"), fine.map((shard) => tileItem(shard, true)));
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({preventScroll: true});
  const isCut = byId("tiles-ready").classList.contains("cut");
  byId("more").hidden = fine.length <= FEW || !isCut;
  byId("more").textContent = `Show all ${count(fine.length)} that serve`;
  byId("found").textContent = query || view.filter !== "all" ? `${count(shown.length)} of ${count(doc.shards.length)} shown` : "";
  oneTabStop();
}

/* Put the items into the list in this order. Items that are in their place already are not touched. */
function arrange(list, items) {
  const wanted = new Set(items);
  for (const item of [...list.children]) if (!wanted.has(item)) item.remove();
  items.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  list.hidden = !items.length;
}

function tileItem(shard, isDense) {
  if (!tileItems.has(shard.id)) tileItems.set(shard.id, el("li", {}, el("button", {type: "button", tabindex: -1, "data-pick": shard.id})));
  const item = tileItems.get(shard.id), button = item.firstElementChild, mark = look(shard);
  const isPicked = view.picked === shard.id;
  const signature = JSON.stringify([isDense, isPicked, mark.tone, mark.word, shard.next, shard.cause, shard.heartbeat.latency_s]);
  if (button.dataset.signature === signature) return item;
  button.dataset.signature = signature;
  button.className = `tile t-${mark.tone}`;
  button.setAttribute("aria-pressed", `${isPicked}`);
  if (isDense) dressDense(button, shard);
  else dressLarge(button, shard, mark);
  return item;
}

function dressDense(button, shard) {
  const words = `Shard ${shard.id}: Ready, latency ${millis(shard.heartbeat.latency_s)}`;
  button.setAttribute("aria-label", words);
  button.title = words;
  if (button.textContent !== `${shard.id}`) button.replaceChildren(el("b", {}, `${shard.id}`));
}

function dressLarge(button, shard, mark) {
  button.removeAttribute("aria-label");
  button.removeAttribute("title");
  const {next} = shard, action = next && (next.action === "dial" ? (next.purpose ?? "dial").toUpperCase() : SHORT_NEXT[next.action] ?? next.action);
  button.replaceChildren(icon(mark.shape), el("b", {}, el("span", {class: "vh"}, "Shard "), `${shard.id}`), " ",
    el("span", {class: "st"}, mark.word), " ",
    el("span", {class: "nx"}, ...(next ? [action, " ", whenNext(next)] : [shard.paused ? "by an operator" : shard.cause ?? " "])));
}

const visibleTiles = () => [...byId("tile-box").querySelectorAll(".tile")].filter((tile) => tile.offsetParent);

/* One tile takes part in Tab: the focused one, the chosen one, or the first. Arrow keys reach the others. */
function oneTabStop() {
  const all = [...byId("tile-box").querySelectorAll(".tile")];
  const stop = all.find((tile) => tile === document.activeElement) ?? all.find((tile) => Number(tile.dataset.pick) === view.picked) ?? all[0];
  for (const tile of all) if ((tile.tabIndex === 0) !== (tile === stop)) tile.tabIndex = tile === stop ? 0 : -1;
}

/* The nearest tile in the next row or in the one before. */
function tileInRow(from, isDown) {
  const here = from.getBoundingClientRect();
  const distance = ({top, left}) => Math.abs(top - here.top) * 10000 + Math.abs(left - here.left);
  const places = visibleTiles().map((tile) => [tile, tile.getBoundingClientRect()]);
  const beyond = places.filter(([, place]) => (isDown ? place.top > here.top + 2 : place.top < here.top - 2));
  return beyond.sort((a, b) => distance(a[1]) - distance(b[1]))[0]?.[0];
}

function tileByKey(key, from) {
  if (key === "ArrowDown" || key === "ArrowUp") return tileInRow(from, key === "ArrowDown");
  const all = visibleTiles(), index = all.indexOf(from);
  return {ArrowRight: all[index + 1], ArrowLeft: all[index - 1], Home: all[0], End: all.at(-1)}[key];
}
