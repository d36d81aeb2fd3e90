// The matrix of health: from each node to each other one.

import { Feed, ask } from "./data.js";
import { badge, h, show } from "./dom.js";
import { facts } from "./drawer.js";
import { Grid } from "./grid.js";
import { Field } from "./field.js";
import { Matrix } from "./matrix.js";
import { lossWords, nodeChip, nodeDrawer, routeWords } from "./node.js";
import { faults } from "./parts.js";
import { states } from "./states.js";
import { Table } from "./table.js";
import { ago, count, number, trip } from "./words.js";

const mostCells = 32; // nodes of which each pair is an element

export const health = {
  name: "health",
  title: "Health",
  open(panel, page) {
    const summary = h("p", { class: "summary" }, "Asking the nodes how they reach each other…");
    const legend = h("ul", { class: "legend" });
    const picture = h("section", { class: "matrix", "aria-label": "From each node to each other one" });
    const notAnswered = h("div");
    const pick = (cell) => pairDrawer(page, cell, () => matrix);
    const table = new Table({
      label: "Paths with a problem", noun: (n) => (n === 1 ? "path with a problem" : "paths with a problem"), filterHint: "node or state", open: pick,
      columns: [
        { key: "from", title: "From", text: (c) => c.from },
        { key: "to", title: "To", text: (c) => c.to },
        { key: "state", title: "State", text: (c) => c.state.word, order: (c) => c.state.rank, cell: (c) => badge(c.state.kind, c.state.word, c.state.sign) },
        { key: "mode", title: "Mode", text: (c) => c.mode || "–" },
        { key: "loss", title: "Probes", text: (c) => lossWords(c.loss) || "–" },
        { key: "since", title: "For", text: (c) => (c.loss?.since ? ago(c.loss.since) : "–"), order: (c) => c.loss?.since ?? "" },
      ],
    });
    panel.append(h("div", { class: "health-side" }, summary, legend, notAnswered, h("section", { "aria-label": "Paths with a problem" }, table.element)), picture);
    let matrix = null, shown = null, told = null;
    const draw = () => {
      if (!told || !page.overview) return;
      matrix = new Matrix(told, page.overview);
      const sum = matrix.sumUp();
      show(summary, sentence(sum));
      legend.replaceChildren(...states.filter((s) => sum.counts.has(s.letter)).map((s) => h("li", { title: s.means },
        h("span", { class: `swatch ${s.kind}`, "aria-hidden": "true" }, s.sign), s.word, h("b", null, number(sum.counts.get(s.letter))))));
      notAnswered.replaceChildren(...faults(told.nodes));
      table.set(sum.bad);
      const Kind = matrix.names.length <= mostCells ? Grid : Field;
      if (!(shown instanceof Kind)) {
        shown?.close?.();
        shown = new Kind(pick, (name) => nodeDrawer(page, name));
        picture.replaceChildren(shown.element);
      }
      shown.set(matrix, sum);
      if (page.drawer.about.startsWith("way ")) page.drawer.refresh();
    };
    let listed = ""; // the nodes that there are, and how
    const feed = new Feed(ask("peers"), { changed: (found) => { told = found; draw(); }, failed: (why) => show(summary, why) });
    feed.start();
    return {
      update(o) {
        const now = o.nodes.map((n) => `${n.name} ${n.state}`).join("\n");
        if (now !== listed) draw();
        listed = now;
      },
      placed: () => table.placed(),
      rest: (hidden) => (hidden ? feed.stop() : feed.start()),
      close() {
        feed.stop();
        table.close();
        shown?.close?.();
      },
    };
  },
};

function sentence({ counts, bad, median }) {
  const all = [...counts.values()].reduce((a, b) => a + b, 0);
  if (!all) return "There is one node only.";
  const words = [bad.length ? `${number(bad.length)} of ${count(all, "path")} ${bad.length === 1 ? "has" : "have"} a problem` : counts.get("o") === all ? `All ${count(all, "path")} are fine` : `${count(all, "path")}, no known problem`];
  if (median) words.push(`median round trip ${trip(median)}`);
  if (counts.get("u")) words.push(`${number(counts.get("u"))} not probed`);
  return words.join("; ");
}

// words is what one cell says, for those who do not see it.
export function words(c) {
  if (c.from === c.to) return `${c.from} itself`;
  return [`${c.from} to ${c.to}: ${c.state.word}`, c.mode, c.trip ? trip(c.trip) : "", lossWords(c.loss)].filter(Boolean).join(", ");
}

// pairDrawer shows details of the way of a cell.
export function pairDrawer(page, picked, current) {
  if (picked.from === picked.to) {
    nodeDrawer(page, picked.from);
    return;
  }
  const at = () => current()?.cell(picked.from, current().names.indexOf(picked.to)) ?? picked;
  page.drawer.open(`way ${picked.from} ${picked.to}`, `${picked.from} → ${picked.to}`, () => {
    const c = at();
    return [
      h("p", { class: "drawer-state" }, badge(c.state.kind, c.state.word, c.state.sign), h("span", null, " ", c.fault ?? c.state.means)),
      facts([
        ["mode", c.mode],
        ["round trip", c.trip ? trip(c.trip) : ""],
        ["probes", lossWords(c.loss)],
        ["for", c.loss?.since ? ago(c.loss.since) : ""],
        ...(c.ways ?? []).map((w) => [w.podCIDR, [...routeWords(w), w.mode && (w.present ? "route present" : "route MISSING"), w.health?.state && `probes: ${w.health.state}`, w.health?.roundTripMicroseconds && trip(w.health.roundTripMicroseconds)].filter(Boolean).join(", ")]),
      ]),
      h("p", { class: "links" }, [picked.from, picked.to].map((n) => nodeChip(page, n, n))),
    ];
  });
}
