// Addresses of Services of type LoadBalancer: what pools have left, which node answers for
// which address, and Services that wait for one.

import { badge, h, show } from "./dom.js";
import { facts } from "./drawer.js";
import { nodeChip } from "./node.js";
import { tile } from "./overview.js";
import { tableByNode } from "./parts.js";
import { Table } from "./table.js";
import { ago, count, number } from "./words.js";

export const balancers = {
  name: "balancers",
  title: "Load balancers",
  open(panel, page) {
    const summary = h("p", { class: "summary", role: "status" }, "Asking a node for addresses of load balancers…");
    const conflicts = h("div");
    const pools = h("div", { class: "tiles" });
    const table = new Table({
      label: "Addresses", noun: (n) => (n === 1 ? "address or Service that waits" : "addresses and Services that wait"), filterHint: "address, node, namespace/name …", key: (r) => r.key,
      open(r) {
        addressDrawer(page, r, () => table.choose(""));
        table.choose(r.key);
      },
      columns: [
        { key: "service", title: "Services", text: (r) => r.services.join(", ") },
        { key: "address", title: "Address", class: "mono", text: (r) => r.ip || "–" },
        { key: "state", title: "State", text: (r) => r.state, cell: (r) => badge(r.kind, r.state) },
        { key: "node", title: "Answered by", text: (r) => r.node || "–" },
        { key: "why", title: "Why not", text: (r) => r.why || "–" },
      ],
    });
    panel.append(summary, conflicts, pools, table.element);
    return tableByNode(table, "announcements", {
      only: (n) => n.balancer, first: (o) => o.nodes.find((n) => n.balancer?.leader)?.balancer.leader,
      nobody: "No agent gives addresses to Services: docs/loadbalancer.md says how to have it.",
      changed(found) {
        const { says, fault } = found.nodes[0] ?? {};
        summary.className = fault ? "summary fault" : "summary";
        show(summary, fault ?? sentence(says));
        conflicts.replaceChildren(...(says?.conflicts ?? []).map((c) => h("p", { class: "fault" }, `${c.ip}: somebody with the MAC address ${c.mac} has it too, at ${c.interface}, ${ago(c.at)} ago`)));
        pools.replaceChildren(...(says?.pools ?? []).map((p) => tile(`${p.pool}, ${p.family}`, `${number(p.given)} of ${number(p.size)}`, (p.ranges ?? []).join(", "), p.given / p.size)));
        table.set(rowsOf(says));
      },
      failed(why) {
        pools.replaceChildren();
        table.set([]);
        show(summary, why);
      },
    });
  },
};

function sentence(says) {
  if (!says) return "Nothing is known of addresses.";
  const waits = says.waiting?.length ?? 0;
  return [
    `As node ${says.node} has them: addresses are given by ${says.leader ? `the agent of ${says.leader}` : "no agent now"}`,
    count(says.members?.length ?? 0, "node") + " can answer",
    waits ? `${count(waits, "Service")} ${waits === 1 ? "waits" : "wait"}` : says.leader === says.node ? "no Service waits" : "which Services wait, only that one knows",
  ].join("; ");
}

// rowsOf are Services that wait, then addresses that nobody answers for, then all others.
function rowsOf(says) {
  const waiting = (says?.waiting ?? []).map((w) => ({ key: `waits ${w.service}`, services: [w.service], ip: "", node: "", state: "waits", kind: "bad", why: w.reason }));
  const all = (says?.addresses ?? []).map((a) => ({
    key: a.ip, services: a.services ?? [], ip: a.ip, node: a.node, state: a.node ? "answered" : "by nobody", kind: a.node ? "ok" : "warn", why: a.nobody ?? "",
  }));
  return [...waiting, ...all.filter((a) => !a.node), ...all.filter((a) => a.node)];
}

function addressDrawer(page, r, closed) {
  page.drawer.open(`address ${r.key}`, r.ip || r.services[0], () => [
    h("p", { class: "drawer-state" }, badge(r.kind, r.state), r.why && h("span", null, " ", r.why)),
    facts([
      ["address", r.ip && h("span", { class: "mono" }, r.ip)],
      ["answered by", r.node && nodeChip(page, r.node)],
    ]),
    h("h3", null, "Services"),
    h("ul", { class: "plain-list" }, r.services.map((s) => h("li", null, s))),
  ], closed);
}
