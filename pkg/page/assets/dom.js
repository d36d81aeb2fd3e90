// Elements are made by functions and text is always text: names of pods, Services and
// problems come from others, and nothing of them is ever read as markup.

const svgNamespace = "http://www.w3.org/2000/svg";

// set gives an element its attributes: functions are listeners, true is an attribute
// without value, and null, undefined and false are none.
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") {
      element.addEventListener(name, value);
    } else if (name === "style") {
      for (const [property, to] of Object.entries(value)) element.style.setProperty(property, to);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

function fill(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

// h makes an element: h("p", {class: "note"}, "text", h("b", null, "more")).
export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  return fill(element, children);
}

// svg makes an element of a picture.
export function svg(name, attributes, ...children) {
  const element = document.createElementNS(svgNamespace, name);
  set(element, attributes);
  return fill(element, children);
}

// show puts a text where another one was, if it is another one.
export function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// kept is what has a name that it keeps when it is drawn anew. Names are not put into
// selectors: any text may be one.
export const kept = (within, name) => [...within.querySelectorAll("[data-keep]")].find((e) => e.dataset.keep === name);

// keepFocus draws anew and lets who has the focus keep it.
export function keepFocus(within, draw) {
  const name = within.contains(document.activeElement) ? document.activeElement.dataset.keep : null;
  draw();
  if (name) kept(within, name)?.focus({ preventScroll: true });
}

// badge is a state in words, with a sign and a colour.
export function badge(kind, text, sign = signs[kind]) {
  return h("span", { class: `badge ${kind}` }, h("span", { class: "sign", "aria-hidden": "true" }, sign), text);
}

export const signs = { ok: "✓", bad: "✕", warn: "!", unknown: "?", idle: "–", info: "i", closed: "▪", joined: "·", self: "" };
