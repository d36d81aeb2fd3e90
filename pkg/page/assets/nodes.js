// All nodes, and how they are joined.

import { badge, h } from "./dom.js";
import { Joined } from "./joined.js";
import { nodeDrawer } from "./node.js";
import { Table } from "./table.js";
import { ago, fastShare, kindOf, number, stateWords, usedWords } from "./words.js";

// mostAsked is with how many nodes all are asked for all their peers.
const mostAsked = 500;

export const nodes = {
  name: "nodes",
  title: "Nodes",
  count: (o) => number(o.nodes.length),
  open(panel, page) {
    const joined = new Joined(page, mostAsked, true);
    const table = new Table({
      label: "Nodes", noun: (n) => (n === 1 ? "node" : "nodes"), filterHint: "name, state, address, version …",
      key: (n) => n.name,
      open(n) {
        nodeDrawer(page, n.name, () => table.choose(""));
        table.choose(n.name);
      },
      columns: [
        { key: "name", title: "Node", text: (n) => n.name },
        { key: "state", title: "State", text: stateWords, order: (n) => `${n.wrong ? 0 : n.unknown ? 1 : 2} ${n.state}`, cell: (n) => badge(kindOf(n), stateWords(n)) },
        { key: "problems", title: "Problems", class: "number", text: (n) => (n.problems ? number(n.problems) : "–"), order: (n) => n.problems },
        { key: "pods", title: "Pods", class: "number", text: (n) => (n.version ? number(n.pods) : "–"), order: (n) => n.pods },
        { key: "used", title: "IPv4 in use", text: used, order: share, cell: usedBar, class: "used" },
        { key: "peers", title: "Peers", text: (n) => (n.joined ?? []).map((g) => `${number(g.peers)} ${g.mode}`).join(", ") || "–" },
        { key: "fabric", title: "Fabric", text: (n) => [n.fabric, n.podMTU].filter(Boolean).join(", MTU ") || "–" },
        { key: "path", title: "Data path", hint: "of established flows, and how many packets take the fast path", text: (n) => [n.dataPath?.path, n.dataPath?.path === "ebpf" && fastShare(n.dataPath)].filter(Boolean).join(", ") || "–" },
        { key: "version", title: "Version", text: (n) => n.version || "–" },
        { key: "up", title: "Up", class: "number", text: (n) => (n.since ? ago(n.since) : "–"), order: (n) => -Date.parse(n.since ?? 0) },
        { key: "addresses", title: "Addresses", class: "mono", text: (n) => n.addresses?.join("  ") || "–" },
        { key: "podCIDRs", title: "Pod CIDRs", class: "mono", text: (n) => n.podCIDRs?.join("  ") || "–" },
      ],
    });
    panel.append(joined.element, table.element);
    return {
      update(o) {
        table.set(o.nodes);
        joined.update(o);
        page.drawer.refresh();
      },
      placed: () => table.placed(),
      rest: (hidden) => joined.rest(hidden),
      close() {
        joined.close();
        table.close();
      },
    };
  },
};

const v4 = (n) => n.usage?.find((u) => u.family === "IPv4");

const used = (n) => (v4(n) ? usedWords(v4(n)) : "–");

const share = (n) => (v4(n)?.total ? v4(n).used / v4(n).total : -1);

function usedBar(n) {
  const part = share(n);
  return [h("span", null, used(n)), part >= 0 && h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${Math.max(2, part * 100)}%` } }))].filter(Boolean);
}
