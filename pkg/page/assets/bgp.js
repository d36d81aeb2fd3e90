// Sessions with routers: what each node is told, and tells.

import { badge, h, show } from "./dom.js";
import { facts } from "./drawer.js";
import { nodeChip } from "./node.js";
import { faults, tableByNode } from "./parts.js";
import { Table } from "./table.js";
import { ago, count, number } from "./words.js";

const mostNodes = 1000; // that are asked at once: each has a line for each router
const established = "established";

export const bgp = {
  name: "bgp",
  title: "BGP",
  open(panel, page) {
    const summary = h("p", { class: "summary", role: "status" }, "Asking the nodes for their sessions…");
    const notAnswered = h("div");
    const table = new Table({
      label: "Sessions", noun: (n) => (n === 1 ? "session" : "sessions"), filterHint: "node, peer, address, reason …", key: (r) => r.key,
      open(r) {
        sessionDrawer(page, r, () => table.choose(""));
        table.choose(r.key);
      },
      columns: [
        { key: "node", title: "Node", text: (r) => r.node },
        { key: "peer", title: "Peer", text: (r) => r.name },
        { key: "address", title: "Address", class: "mono", text: (r) => r.address },
        { key: "as", title: "AS", class: "number", text: (r) => String(r.asn), order: (r) => r.asn },
        { key: "state", title: "State", text: (r) => r.state, order: (r) => `${r.up ? 1 : 0} ${r.state}`, cell: (r) => badge(r.up ? "ok" : "bad", r.state) },
        { key: "since", title: "Since", found: false, class: "number", text: (r) => ago(r.since), order: (r) => -Date.parse(r.since) },
        { key: "announced", title: "Announced", hint: "prefixes that the peer is told", class: "number", text: (r) => number(r.announced), order: (r) => r.announced },
        { key: "received", title: "Received", hint: "routes that the peer tells", class: "number", text: (r) => number(r.received), order: (r) => r.received },
        { key: "accepted", title: "Accepted", class: "number", text: (r) => number(r.accepted), order: (r) => r.accepted },
        { key: "why", title: "Why not", text: (r) => r.why || "–" },
      ],
    });
    panel.append(summary, notAnswered, table.element);
    return tableByNode(table, "bgp", {
      most: mostNodes, only: (n) => n.bgp, nobody: "No node speaks BGP: docs/bgp.md says how to have it.",
      changed(found) {
        const rows = rowsOf(found.nodes);
        const down = rows.filter((r) => !r.up);
        summary.className = "summary";
        show(summary, !rows.length ? "No node has a session." : down.length ? `${number(down.length)} of ${count(rows.length, "session")} ${down.length === 1 ? "is" : "are"} not established` : `All ${count(rows.length, "session")} are established`);
        notAnswered.replaceChildren(...faults(found.nodes));
        table.set(rows);
      },
      failed(why) {
        table.set([]);
        show(summary, why);
      },
    });
  },
};

// rowsOf are the sessions, those that are not established first.
function rowsOf(nodes) {
  const rows = [];
  for (const n of nodes) {
    for (const p of n.says?.peers ?? []) {
      const refused = p.refused ?? [];
      const why = p.reason || refused.map((r) => `${number(r.count)} not accepted, as ${r.example}: ${r.reason}`).join("; ");
      rows.push({ ...p, node: n.node, own: n.says, up: p.state === established, refused, why, key: `${n.node} ${p.name} ${p.address}` });
    }
  }
  return rows.sort((a, b) => a.up - b.up);
}

function sessionDrawer(page, r, closed) {
  page.drawer.open(`session ${r.key}`, `${r.node} → ${r.name}`, () => [
    h("p", { class: "drawer-state" }, badge(r.up ? "ok" : "bad", r.state), r.reason && h("span", null, " ", r.reason)),
    facts([
      ["node", nodeChip(page, r.node)],
      ["node's AS", String(r.own.asn)],
      ["router id", r.own.routerID],
      ["peer", h("span", { class: "mono" }, r.address)],
      ["peer's AS", String(r.asn)],
      ["families", r.families?.join(", ")],
      ["since", ago(r.since)],
      ["announced", number(r.announced)],
      ["received", number(r.received)],
      ["accepted", number(r.accepted)],
    ]),
    r.refused.map((one) => h("p", { class: "fault" }, `${number(one.count)} not accepted, as ${one.example}: ${one.reason}`)),
    h("h3", null, `Announced by the node (${number(r.own.announced?.length ?? 0)})`),
    h("ul", { class: "plain-list mono" }, (r.own.announced ?? []).slice(0, 200).map((prefix) => h("li", null, prefix))),
  ], closed);
}
