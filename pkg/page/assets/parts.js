// What several views have.

import { Feed, ask } from "./data.js";
import { h } from "./dom.js";
import * as place from "./place.js";
import { count, natural } from "./words.js";

// faults says which nodes did not answer a question, those with the same words together.
export function faults(nodes) {
  const by = new Map();
  for (const n of nodes) if (n.fault) by.set(n.fault, [...(by.get(n.fault) ?? []), n.node]);
  return [...by].map(([fault, names]) => h("p", { class: "fault" },
    h("b", null, names.length > 4 ? count(names.length, "node") : names.join(", ")), ": ", fault));
}

// Chooser lets the reader choose a node, or all of them where there are first no more than
// most; without that, always one, which is at first that of first(overview). Only those
// are offered of which only says so.
export class Chooser {
  constructor({ most, changed, only = () => true, first = () => "" }) {
    Object.assign(this, { most, changed, only, first });
    this.select = h("select", { id: "node", change: () => {
      place.put({ node: this.select.value });
      this.changed(this.select.value);
    } });
    this.element = h("span", { class: "chooser" }, h("label", { for: "node" }, "Node"), this.select);
    this.names = "";
  }

  // set offers the nodes that answer.
  set(overview) {
    const names = overview.nodes.filter((n) => n.answers && this.only(n)).map((n) => n.name).sort(natural);
    if (names.join() === this.names) return;
    this.names = names.join();
    this.all ??= names.length <= this.most;
    const value = place.get("node") || this.first(overview);
    this.select.replaceChildren(...(this.all ? [h("option", { value: "" }, "all")] : []), ...names.map((n) => h("option", { value: n }, n)));
    this.select.value = names.includes(value) ? value : this.all ? "" : names[0] ?? "";
  }

  get node() {
    return this.select.value;
  }

  // placed takes over what the address says.
  placed() {
    const value = place.get("node");
    if (value && value !== this.select.value && [...this.select.options].some((o) => o.value === value)) {
      this.select.value = value;
      this.changed(value);
    }
  }
}

// tableByNode are the functions of a view, as main.js has them, whose table shows what the
// chosen node says about something.
export function tableByNode(table, about, { most, only, first, changed, failed, nobody = "No node answers." }) {
  let feed = null;
  const chooser = new Chooser({ most, only, first, changed: begin });
  table.tools.prepend(chooser.element);

  function begin() {
    feed?.stop();
    feed = null;
    if (!chooser.names || (most === undefined && !chooser.node)) {
      failed(nobody);
      return;
    }
    feed = new Feed(ask(about, chooser.node), { changed, failed });
    feed.start();
  }
  return {
    update(o) {
      const before = chooser.node, who = chooser.names;
      chooser.set(o);
      if (!feed || chooser.node !== before || !chooser.names) begin();
      else if (who && who !== chooser.names) feed.ask(); // others answer now
    },
    placed() {
      table.placed();
      chooser.placed();
    },
    rest: (hidden) => (hidden ? feed?.stop() : feed?.start()),
    close() {
      feed?.stop();
      table.close();
    },
  };
}
