// How the nodes are joined: those that reach each other by plain routes are in one box,
// and what goes from box to box goes through the tunnel below. So there are as many lines
// as boxes, however many nodes.

import { h, svg } from "./dom.js";
import { isBad, stateOf } from "./states.js";
import { count, kindOf, number } from "./words.js";

const width = 1180; // at most
const largest = 1.15; // times, where there is room
const pad = 14, titleHeight = 26, gapX = 24, gapY = 26;
const mostNamed = 40; // nodes with which each has its name
const mostLines = 24; // ways that are not well and are drawn one by one

export function draw(matrix, overview, open) {
  const groups = grouped(matrix);
  const bad = [];
  for (const from of matrix.from) {
    const row = matrix.row(from);
    for (let to = 0; to < matrix.names.length; to++) {
      const state = stateOf(row.state(to));
      if (isBad(state)) bad.push({ from, to: matrix.names[to], state });
    }
  }
  const places = new Map();
  const { boxes, bottom } = arranged(groups, matrix.names.length <= mostNamed);
  const kinds = new Map(overview.nodes.map((n) => [n.name, kindOf(n)]));
  const tunnel = groups.some((g) => g.tunnel);
  const height = bottom + (tunnel ? 44 : 4);
  const drawn = boxes.map((b) => box(b, kinds, places, open));
  const right = Math.max(260, ...boxes.map((b) => b.x + b.w)) + 2;
  const says = groups.map((g) => `${count(g.names.length, "node")} ${g.alone ? "through the tunnel only" : "joined by plain routes"}`).join("; ");
  const lines = bad.length <= mostLines ? bad.map((w) => line(w, places)) : [];
  const parts = [svg("svg", { viewBox: `0 0 ${right} ${height}`, role: "img", "aria-label": `${says}${tunnel ? "; between the groups the tunnel" : ""}`, class: "joined-picture", style: { "max-width": `${Math.round(right * largest)}px` } },
    tunnel && bus(boxes, bottom, right), drawn, lines)];
  if (bad.length > 0) {
    const words = `${count(bad.length, "path")} ${bad.length === 1 ? "has" : "have"} a problem`;
    parts.push(h("p", { class: "fault" }, bad.length <= mostLines ? `${words}: see the dashed ${bad.length === 1 ? "line" : "lines"}.` : `${words}: see the Health view.`));
  }
  return parts;
}

// grouped are the nodes by who reaches whom by plain routes.
function grouped(m) {
  const up = m.names.map((_, i) => i);
  const find = (i) => {
    while (up[i] !== i) i = up[i] = up[up[i]];
    return i;
  };
  const place = new Map(m.names.map((name, i) => [name, i]));
  const tunnel = new Set();
  for (const from of m.from) {
    const i = place.get(from);
    const row = m.row(from);
    for (let j = 0; j < m.names.length; j++) {
      const mode = row.mode(j);
      if (mode === "d" || mode === "b") up[find(i)] = find(j);
      else if (mode === "v" || mode === "m") tunnel.add(i).add(j);
    }
  }
  const by = new Map();
  m.names.forEach((name, i) => by.set(find(i), [...(by.get(find(i)) ?? []), i]));
  const groups = [], alone = [];
  for (const members of by.values()) {
    const uses = members.some((i) => tunnel.has(i));
    if (members.length === 1 && by.size > 2) alone.push(...members);
    else groups.push({ names: members.map((i) => m.names[i]), tunnel: uses, alone: members.length === 1 && uses });
  }
  groups.sort((a, b) => b.names.length - a.names.length);
  if (alone.length) groups.push({ names: alone.sort((a, b) => a - b).map((i) => m.names[i]), tunnel: alone.some((i) => tunnel.has(i)), alone: true });
  return groups;
}

// arranged gives each group a box, beside and below each other.
function arranged(groups, named) {
  const longest = Math.max(4, ...groups.flatMap((g) => g.names.map((n) => n.length)));
  const cell = named ? { w: Math.min(190, 34 + longest * 7.4), h: 30 } : { w: 15, h: 15 };
  const boxes = [];
  let x = 2, y = 2, tallest = 0;
  for (const g of groups) {
    const n = g.names.length;
    const most = Math.max(1, Math.floor((width - 2 * pad - 4) / cell.w));
    const columns = Math.min(most, n, Math.max(named ? Math.min(n, 4) : 10, Math.ceil(Math.sqrt(n * (named ? 1.6 : 4.6)))));
    const rows = Math.ceil(n / columns);
    const w = Math.max(columns * cell.w + 2 * pad, 190), h = rows * cell.h + titleHeight + pad;
    if (x > 2 && x + w > width) [x, y, tallest] = [2, y + tallest + gapY, 0];
    boxes.push({ ...g, x, y, w, h, columns, cell, named });
    x += w + gapX;
    tallest = Math.max(tallest, h);
  }
  return { boxes, bottom: y + tallest };
}

function box(b, kinds, places, open) {
  const nodes = b.names.map((name, i) => {
    const x = b.x + pad + (i % b.columns) * b.cell.w, y = b.y + titleHeight + Math.floor(i / b.columns) * b.cell.h;
    const kind = kinds.get(name) ?? "idle";
    places.set(name, { x: x + (b.named ? 9 : 6), y: y + (b.named ? 13 : 6) });
    if (!b.named) return svg("rect", { class: `dot ${kind}`, x, y, width: 12, height: 12, rx: kind === "ok" ? 3 : 0, click: () => open(name) }, svg("title", null, name));
    return svg("g", { class: `node ${kind}`, click: () => open(name) }, svg("title", null, name),
      svg("rect", { class: "plate", x: x - 3, y, width: b.cell.w - 6, height: 26, rx: 6 }),
      svg("circle", { cx: x + 9, cy: y + 13, r: 4.5 }), kind !== "ok" && svg("text", { x: x + 9, y: y + 16.5, class: "node-sign" }, kind === "idle" ? "–" : "!"),
      svg("text", { x: x + 20, y: y + 17 }, name));
  });
  const title = `${count(b.names.length, "node")}, ${b.alone ? "tunnel only" : b.names.length === 1 ? "alone" : "plain routes"}`;
  return svg("g", null, svg("rect", { class: `frame${b.alone ? " alone" : ""}`, x: b.x, y: b.y, width: b.w, height: b.h, rx: 9 }),
    svg("text", { class: "segment-title", x: b.x + pad, y: b.y + 17 }, title), nodes);
}

// bus is the tunnel, with a line to each box that uses it.
function bus(boxes, bottom, right) {
  const y = bottom + 20;
  const users = boxes.filter((b) => b.tunnel);
  const middles = users.map((b) => b.x + b.w / 2);
  const from = Math.max(2, Math.min(...middles) - 60);
  const to = Math.min(right - 2, Math.max(...middles) + 60);
  return svg("g", { class: "tunnel" }, users.map((b, i) => svg("line", { x1: middles[i], y1: b.y + b.h, x2: middles[i], y2: y })),
    svg("rect", { x: from, y: y - 5, width: to - from, height: 10, rx: 5 }),
    svg("text", { x: (from + to) / 2, y: y + 20, "text-anchor": "middle" }, "VXLAN tunnel"));
}

function line({ from, to, state }, places) {
  const a = places.get(from), b = places.get(to);
  if (!a || !b) return null;
  const bend = from < to ? -26 : 26; // both directions are seen
  return svg("path", { class: `bad-way ${state.kind}`, d: `M${a.x} ${a.y} Q${(a.x + b.x) / 2} ${(a.y + b.y) / 2 + bend} ${b.x} ${b.y}` }, svg("title", null, `${from} to ${to}: ${state.word}`));
}
