// What is wrong, what to do about it, and the cluster in a few numbers.

import { badge, h, keepFocus, signs } from "./dom.js";
import { count, kindOf, number, stateWords } from "./words.js";
import { Grid } from "./grid.js";
import { pairDrawer } from "./health.js";
import { Joined } from "./joined.js";
import { nodeChip, nodeDrawer } from "./node.js";

const mostNames = 8;
// Nodes with which the overview has the picture, and the matrix, too.
const mostDrawn = 60;
const mostInGrid = 8;

export const overview = {
  name: "overview",
  title: "Overview",
  count: (o) => (o.findings.length ? number(o.findings.length) : ""),
  open(panel, page) {
    const problems = h("section", { class: "findings", "aria-labelledby": "problems" });
    const side = h("section", { "aria-label": "In numbers" });
    const joined = new Joined(page, mostDrawn);
    const grid = new Grid((cell) => pairDrawer(page, cell, () => matrix), (name) => nodeDrawer(page, name));
    const health = h("div", { hidden: true }, h("h2", { class: "apart" }, "Health, from each node to each other one"), grid.element);
    let matrix = null;
    joined.drawn = (m) => {
      matrix = m;
      health.hidden = m.names.length > mostInGrid;
      if (!health.hidden) grid.set(m);
    };
    const pictures = h("div", null, h("h2", { class: "apart" }, "How the nodes are joined"), joined.element, health);
    const left = h("div", null, problems, pictures), right = h("div", null, side);
    panel.append(left, right);
    return {
      rest: (hidden) => joined.rest(hidden),
      close: () => joined.close(),
      update(o) {
        joined.update(o);
        pictures.hidden = !joined.feed;
        // Where there are problems, they have the room.
        const beside = o.findings.length > 0 ? right : left;
        if (pictures.parentElement !== beside) beside.append(pictures);
        keepFocus(panel, () => {
          problems.replaceChildren(...findings(o, page));
          side.replaceChildren(...numbers(o, page));
        });
        page.drawer.refresh();
      },
    };
  },
};

function findings(o, page) {
  const parts = [h("h2", { id: "problems" }, "Problems")];
  for (const u of o.unknown ?? []) parts.push(h("article", { class: "finding unknown" }, h("p", { class: "text" }, sign("unknown"), "Not known: ", u)));
  for (const [i, f] of o.findings.entries()) {
    parts.push(h("article", { class: "finding" },
      h("p", { class: "text" }, sign("bad"), ...kinded(f.text)),
      f.advice && h("p", { class: "advice" }, ...coded(f.advice)),
      h("p", { class: "where" }, names(f.nodes, i, page))));
  }
  if (parts.length === 1) parts.push(h("p", { class: "well" }, sign("ok"), o.nodes.length ? "None: every node is as it should be." : "No node is seen."));
  if (o.notes?.length) {
    parts.push(h("h2", null, "Notes"));
    for (const n of o.notes) parts.push(h("article", { class: "finding note" }, h("p", { class: "text" }, sign("info"), n)));
  }
  return parts;
}

const sign = (kind) => h("span", { class: `mark ${kind}`, "aria-hidden": "true" }, signs[kind]);

// kinded sets the kind of a problem, in brackets at the end, apart.
function kinded(text) {
  const m = /^(.*) \[([a-z0-9-]+)\]$/s.exec(text);
  return m ? [...coded(m[1]), " ", h("span", { class: "kind", title: "as docs/operations.md lists it" }, m[2])] : coded(text);
}

// coded shows what is between backquotes as a command.
export function coded(text) {
  return text.split("`").map((part, i) => (i % 2 ? h("code", null, part) : part));
}

function names(nodes, of, page) {
  const parts = nodes.slice(0, mostNames).map((n) => nodeChip(page, n, `${of} ${n}`));
  if (nodes.length > mostNames) parts.push(h("span", { class: "more" }, `and ${count(nodes.length - mostNames, "more", "more")}`));
  return parts;
}

// numbers are tiles, and each node as a square.
function numbers(o, page) {
  const states = new Map();
  let used = 0, total = 0, pods = 0;
  for (const n of o.nodes) {
    const known = states.get(stateWords(n)) ?? { kind: kindOf(n), nodes: 0 };
    known.nodes++;
    states.set(stateWords(n), known);
    pods += n.pods;
    const v4 = n.usage?.find((u) => u.total > 0 && u.total < 1e9) ?? null;
    if (v4) [used, total] = [used + v4.used, total + v4.total];
  }
  const ways = new Map();
  for (const n of o.nodes) for (const g of n.joined ?? []) ways.set(g.mode, (ways.get(g.mode) ?? 0) + g.peers);
  return [
    h("h2", null, o.of === "node" ? "The node and its peers" : "Nodes"),
    h("div", { class: "waffle", role: "group", "aria-label": "Each node, what is wrong first" }, squares(o.nodes, page)),
    h("ul", { class: "legend" }, [...states].map(([state, s]) => h("li", null, badge(s.kind, state), h("b", null, number(s.nodes))))),
    h("div", { class: "tiles" },
      tile("Pods", number(pods), o.of === "node" ? "attached here" : "with an address"),
      total > 0 && tile("IPv4 in use", `${Math.round((used / total) * 100)} %`, `${number(used)} of ${number(total)}`, used / total),
      ways.size > 0 && tile("Paths", number([...ways.values()].reduce((a, b) => a + b, 0)), [...ways].sort((a, b) => b[1] - a[1]).map(([mode, n]) => `${number(n)} ${mode}`).join(", ")),
      tile("Version", same(o.nodes.map((n) => n.version)), [same(o.nodes.filter((n) => n.version).map((n) => n.fabric)), same(o.nodes.map((n) => n.podMTU && `MTU ${n.podMTU}`))].filter(Boolean).join(", "))),
  ];
}

// same is what all say that say something, or that there are several.
function same(values) {
  const all = [...new Set(values.filter(Boolean))];
  return all.length > 1 ? "several" : all[0] ?? "";
}

const mostSquares = 2000;

function squares(nodes, page) {
  const small = nodes.length > 60;
  return nodes.slice(0, mostSquares).map((n, i) => h("button", {
    type: "button", class: `square ${kindOf(n)}${small ? " small" : ""}`, tabindex: i === 0 ? 0 : -1, "data-keep": `square ${n.name}`,
    "aria-label": `${n.name}: ${stateWords(n)}${n.problems ? `, ${count(n.problems, "problem")}` : ""}`, title: `${n.name}: ${n.state}`,
    click: () => nodeDrawer(page, n.name), keydown: rove,
  }, h("span", { class: "sign", "aria-hidden": "true" }, kindOf(n) === "ok" ? "" : signs[kindOf(n)]), small ? null : n.name));
}

// rove goes from one of several buttons to the next by arrow keys.
function rove(event) {
  const all = [...event.currentTarget.parentElement.querySelectorAll("button")];
  const at = all.indexOf(event.currentTarget);
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || !all[to]) return;
  event.preventDefault();
  event.currentTarget.tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
}

export function tile(name, value, words, share) {
  const bar = share !== undefined && h("div", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${Math.max(1, Math.min(100, share * 100))}%` } }));
  return h("div", { class: "tile" }, h("span", { class: "tile-name" }, name), h("span", { class: "tile-value" }, value), bar, h("span", { class: "tile-words" }, words));
}
