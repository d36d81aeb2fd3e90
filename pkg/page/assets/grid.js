// The matrix of a few nodes: a table in which each way is a cell with its sign.

import { h, keepFocus } from "./dom.js";
import { words } from "./health.js";
import { isBad } from "./states.js";
import { trip } from "./words.js";

const roomy = 8; // nodes with which a cell has room for the round trip

export class Grid {
  constructor(pick, node) {
    Object.assign(this, { pick, node });
    this.at = [0, 0];
    this.element = h("div");
  }

  set(matrix) {
    keepFocus(this.element, () => this.element.replaceChildren(this.table(matrix)));
  }

  table(m) {
    const wide = m.names.length <= roomy;
    const head = h("tr", null, h("td", { class: "corner" }, h("span", null, "from ↓ to →")), m.names.map((name) => h("th", { scope: "col" }, h("span", null, name))));
    this.at = [Math.min(this.at[0], m.from.length - 1), Math.min(this.at[1], m.names.length - 1)];
    const rows = m.from.map((from, i) => h("tr", null,
      h("th", { scope: "row" }, h("button", { type: "button", class: "plain name", "data-keep": `row ${from}`, tabindex: -1, click: () => this.node(from) }, from)),
      m.names.map((to, j) => this.cell(m.cell(from, j), i, j, wide))));
    return h("table", { class: `grid${wide ? " wide" : ""}`, "aria-label": "Health from each node to each other one" }, h("thead", null, head), h("tbody", { keydown: (event) => this.move(event) }, rows));
  }

  cell(c, i, j, wide) {
    return h("td", { class: c.state.kind }, h("button", {
      type: "button", "data-keep": `${i},${j}`, "data-i": i, "data-j": j, tabindex: this.at[0] === i && this.at[1] === j ? 0 : -1, "aria-label": words(c), title: words(c),
      click: () => this.pick(c), focus: () => { this.at = [i, j]; },
    }, h("span", { class: "sign", "aria-hidden": "true" }, c.state.sign), wide && c.from !== c.to && h("span", { class: "trip", "aria-hidden": "true" }, isBad(c.state) ? c.state.word : c.trip ? trip(c.trip) : c.mode || c.state.word)));
  }

  // move goes to another cell by the arrow keys.
  move(event) {
    const [i, j] = this.at;
    const to = { ArrowRight: [i, j + 1], ArrowLeft: [i, j - 1], ArrowDown: [i + 1, j], ArrowUp: [i - 1, j], Home: [i, 0] }[event.key];
    const next = to && this.element.querySelector(`[data-i="${to[0]}"][data-j="${to[1]}"]`);
    if (!next) return;
    event.preventDefault();
    this.element.querySelector('td button[tabindex="0"]')?.setAttribute("tabindex", "-1");
    next.tabIndex = 0;
    next.focus();
  }
}
