// A table that is as quick with thirty thousand rows as with three: only the rows that
// are seen are elements.

import { h, show } from "./dom.js";
import { Rows } from "./rows.js";
import * as place from "./place.js";
import { number } from "./words.js";

const rowHeight = 30; // as the style sheet has it
const margin = 8; // rows above and below what is seen

// Table shows rows of columns. A column is {key, title, text(row), order(row)?, cell(row)?,
// class?, found?}, and the filter does not look where found is false; the first one is the row's name. open(row) is called for one that is chosen, which
// key(row) names.
export class Table {
  constructor({ label, noun, columns, key, open, filterHint }) {
    Object.assign(this, { label, noun, columns, key, open });
    this.chosen = "";
    this.rows = new Rows(columns);
    this.focused = 0;
    this.filter = h("input", {
      type: "search", id: `filter-${label}`, placeholder: filterHint ?? "name, address, …", autocomplete: "off", spellcheck: "false",
      value: place.get("filter"), "aria-describedby": `shown-${label}`, input: () => this.filtered(),
    });
    this.shown = h("span", { class: "shown", id: `shown-${label}`, role: "status", "aria-live": "polite" });
    this.tools = h("div", { class: "tools" }, h("label", { for: `filter-${label}` }, "Filter"), this.filter, this.shown);
    this.head = columns.map((c) => h("th", { scope: "col", class: c.class }, h("button", { type: "button", title: c.hint, click: () => this.sortBy(c.key) }, h("span", null, c.title), h("span", { class: "arrow", "aria-hidden": "true" }))));
    this.body = h("tbody");
    this.table = h("table", { "aria-label": label }, h("thead", null, h("tr", { "aria-rowindex": 1 }, this.head)), this.body);
    this.scroll = h("div", { class: "scroll", tabindex: -1, scroll: () => this.later() }, this.table);
    this.body.addEventListener("keydown", (event) => this.move(event));
    this.body.addEventListener("focusin", (event) => {
      const at = event.target.closest("tr")?.dataset.at;
      if (at !== undefined) this.focused = Number(at);
    });
    this.element = h("div", { class: "table" }, this.tools, this.scroll);
    this.rows.filter = place.get("filter");
    this.sorted = place.get("sort");
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.scroll);
    this.mark();
  }

  // placed reads again what the address says.
  placed() {
    const filter = place.get("filter");
    if (filter !== this.rows.filter) {
      this.filter.value = this.rows.filter = filter;
      this.arrange();
    }
  }

  close() {
    clearTimeout(this.rows.later);
    this.resized.disconnect();
  }

  // set shows other rows.
  set(rows) {
    this.rows.set(rows);
    this.arrange();
  }

  // choose marks the row of which details are shown; none for "".
  choose(key) {
    this.chosen = key;
    this.draw();
  }

  filtered() {
    this.rows.filter = this.filter.value;
    place.put({ filter: this.filter.value });
    this.focused = 0;
    this.scroll.scrollTop = 0;
    this.arrange();
  }

  sortBy(key) {
    this.sorted = this.sorted === key ? `-${key}` : this.sorted === `-${key}` ? "" : key;
    place.put({ sort: this.sorted });
    this.mark();
    this.arrange();
  }

  // mark says in the heads by what it is sorted.
  mark() {
    const down = this.sorted.startsWith("-");
    const key = down ? this.sorted.slice(1) : this.sorted;
    this.columns.forEach((c, i) => {
      const sort = c.key !== key ? "none" : down ? "descending" : "ascending";
      this.head[i].setAttribute("aria-sort", sort);
      show(this.head[i].querySelector(".arrow"), { none: "", ascending: "▲", descending: "▼" }[sort]);
    });
  }

  arrange() {
    this.visible = this.rows.arrange(this.sorted);
    const all = this.rows.all.length;
    show(this.shown, this.visible.length === all ? `${number(all)} ${this.noun(all)}` : `${number(this.visible.length)} of ${number(all)} ${this.noun(all)}`);
    this.table.setAttribute("aria-rowcount", this.visible.length + 1);
    this.focused = Math.min(this.focused, Math.max(0, this.visible.length - 1));
    this.draw();
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    if (!this.visible) return;
    const seen = Math.ceil((this.scroll.clientHeight || 600) / rowHeight);
    const first = Math.max(0, Math.min(Math.floor(this.scroll.scrollTop / rowHeight) - margin, this.visible.length - seen));
    const last = Math.min(this.visible.length, first + seen + 2 * margin);
    const had = this.body.contains(document.activeElement);
    const rows = [];
    for (let i = first; i < last; i++) rows.push(this.row(this.visible[i], i));
    if (this.visible.length === 0) rows.push(h("tr", { class: "none" }, h("td", { colspan: this.columns.length }, this.rows.all.length ? "Nothing matches the filter." : "There are none.")));
    this.body.replaceChildren(this.space(first), ...rows, this.space(this.visible.length - last));
    if (had) this.body.querySelector(`[data-at="${this.focused}"] button`)?.focus({ preventScroll: true });
    if (!this.body.querySelector('button[tabindex="0"]')) this.body.querySelector("button")?.setAttribute("tabindex", "0");
  }

  space(rows) {
    const cell = h("td", { colspan: this.columns.length });
    cell.style.height = `${rows * rowHeight}px`;
    return h("tr", { class: "space", "aria-hidden": "true", hidden: rows === 0 }, cell);
  }

  row(row, at) {
    const [name, ...others] = this.columns;
    const choose = () => {
      this.focused = at;
      this.open?.(row);
    };
    const chosen = this.chosen !== "" && this.key?.(row) === this.chosen;
    return h("tr", { "aria-rowindex": at + 2, "data-at": at, class: chosen ? "chosen" : null, click: (event) => event.target.closest("button") || choose() },
      h("th", { scope: "row", class: name.class }, h("button", { type: "button", class: "name", title: name.text(row), "data-keep": `row ${this.key?.(row) ?? at}`, tabindex: at === this.focused ? 0 : -1, "aria-expanded": this.open ? String(Boolean(chosen)) : null, click: choose }, name.cell ? name.cell(row) : name.text(row))),
      others.map((c) => {
        const text = c.text(row);
        return h("td", { class: c.class, title: text.length > 12 ? text : null }, c.cell ? c.cell(row) : text);
      }));
  }

  // move goes to another row by its keys.
  move(event) {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / rowHeight) - 2);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.focused = Math.max(0, Math.min(this.visible.length - 1, this.focused + step));
    const top = this.focused * rowHeight;
    const height = this.scroll.clientHeight - rowHeight; // below the head
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top + rowHeight > this.scroll.scrollTop + height) this.scroll.scrollTop = top + rowHeight - height;
    this.draw();
    this.body.querySelector(`[data-at="${this.focused}"] button`)?.focus({ preventScroll: true });
  }
}
