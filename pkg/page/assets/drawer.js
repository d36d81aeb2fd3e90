// Details of one thing, beside what it was chosen in.

import { h, keepFocus, kept } from "./dom.js";

export class Drawer {
  constructor(element) {
    this.element = element;
    this.from = null;
    this.about = "";
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  // open shows details of what key names; render returns them, again when there is news.
  open(key, title, render, closed) {
    this.closed?.();
    if (this.element.hidden) this.from = { element: document.activeElement, name: document.activeElement.dataset.keep };
    const fresh = this.about !== key;
    Object.assign(this, { about: key, render, closed, title });
    this.element.hidden = false;
    this.draw();
    if (fresh) this.element.querySelector("h2").focus();
  }

  draw() {
    const scrolled = this.body?.scrollTop ?? 0;
    this.body = h("div", { class: "drawer-body" }, this.render());
    keepFocus(this.element, () => this.element.replaceChildren(
      h("div", { class: "drawer-head" },
        h("h2", { tabindex: "-1", "data-keep": "title" }, this.title),
        h("button", { type: "button", class: "plain", "data-keep": "close", "aria-label": "Close details", title: "Close (Esc)", click: () => this.close() }, "✕")),
      this.body));
    this.body.scrollTop = scrolled;
  }

  // refresh draws anew what is shown.
  refresh() {
    if (this.about) this.draw();
  }

  close(back = true) {
    if (!this.about) return;
    const { closed, from } = this;
    Object.assign(this, { about: "", closed: null, from: null });
    this.element.hidden = true;
    this.element.replaceChildren();
    closed?.();
    if (back && from) goBack(from);
  }
}

// goBack gives the focus to what had it, or what has been drawn in its place since.
function goBack({ element, name }) {
  const to = element.isConnected ? element : kept(document, name);
  (to ?? document.getElementById("panel")).focus();
}

// facts is a list of names and values; what is empty is left out.
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false)
    .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}
