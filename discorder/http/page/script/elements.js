/* Make elements. Text is always set as text, never as markup. */

const SVG_NAMES = new Set(["svg", "use", "path", "rect", "line", "circle", "g", "text"]);
const byId = (id) => document.getElementById(id);
const isShown = (child) => isKnown(child) && child !== false;

function el(name, attributes = {}, ...children) {
  const node = SVG_NAMES.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (isShown(value)) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter(isShown));
  return node;
}

/* Replace the content of an element. The focus stays on the element with the same data-key. */
function put(where, ...children) {
  const box = typeof where === "string" ? byId(where) : where;
  const key = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  box.replaceChildren(...children.flat(9).filter(isShown));
  if (key) box.querySelector(`[data-key="${key}"]`)?.focus({preventScroll: true});
}

const icon = (name) => el("svg", {class: "ic", "aria-hidden": "true", viewBox: "0 0 20 20"}, el("use", {href: `#i-${name}`}));
const setIcon = (id, name) => byId(id).firstElementChild.setAttribute("href", `#i-${name}`);
const small = (...children) => el("small", {}, ...children);
const unit = (text) => el("i", {}, text);
const strong = (...children) => el("strong", {}, ...children);
const arrow = () => el("span", {class: "arrow"}, " → ");
const pair = (name, value, note) => el("div", {}, el("dt", {}, name), el("dd", {}, value, isShown(note) && note !== "" ? small(note) : null));

/* Fill a table body. Each row is a list of [content, class]; the labels of a narrow screen come from the head of the table. */
function rows(id, list) {
  const labels = [...byId(id).closest("table").querySelectorAll("th")].map((head) => head.textContent);
  const cell = ([content, kind], column) => el("td", {class: kind, role: "cell", "data-label": labels[column]}, el("div", {}, content));
  put(id, list.map((cells) => el("tr", {role: "row", class: cells.kind}, cells.map(cell))));
}

const titleOf = (iso) => `${iso.slice(0, 10)} ${timeOfDay(iso)} UTC`;
const moment = (iso) => el("time", {datetime: iso, title: titleOf(iso)}, stamp(iso));

/* An age that the ticker carries on. */
function since(iso, before = "", after = "") {
  if (!iso) return DASH;
  const node = el("time", {datetime: iso, title: titleOf(iso), "data-since": iso, "data-before": before, "data-after": after});
  node.textContent = ageText(node.dataset);
  return node;
}

/* A countdown that the ticker carries on. */
function until(iso, before, late) {
  const node = el("time", {datetime: iso, title: titleOf(iso), "data-until": iso, "data-before": before, "data-late": late});
  node.textContent = dueText(node.dataset);
  return node;
}

/* A bar of one share between 0 and 1. With a label it is a picture, otherwise an ornament. */
function bar(share, kind, label) {
  const attributes = {class: kind, viewBox: "0 0 100 1", preserveAspectRatio: "none"};
  Object.assign(attributes, label ? {role: "img", "aria-label": label} : {"aria-hidden": "true"});
  return el("svg", attributes, el("rect", {width: (share * 100).toFixed(1), height: 1}));
}
