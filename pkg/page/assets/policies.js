// What policies come to for each pod.

import { badge, h, show } from "./dom.js";
import { faults, tableByNode } from "./parts.js";
import { Table } from "./table.js";
import { count, number } from "./words.js";

const mostNodes = 30; // that are asked at once: each answer has every rule of every pod

export const policies = {
  name: "policies",
  title: "Policies",
  open(panel, page) {
    const summary = h("p", { class: "summary", role: "status" }, "Asking for policies…");
    const idle = h("div");
    const notAnswered = h("div");
    const side = (direction) => ({
      key: direction, title: direction === "ingress" ? "To it" : "From it", text: (r) => sideText(r[direction]), order: (r) => -(r[direction]?.policies.length ?? 0),
      cell: (r) => sideBadge(r[direction]),
    });
    const table = new Table({
      label: "Policies", noun: (n) => (n === 1 ? "pod" : "pods"), filterHint: "pod, policy, address …", key: (r) => r.key,
      open(r) {
        policyDrawer(page, r, () => table.choose(""));
        table.choose(r.key);
      },
      columns: [
        { key: "pod", title: "Pod", text: (r) => r.pod },
        { key: "node", title: "Node", text: (r) => r.node },
        side("ingress"),
        side("egress"),
        { key: "refused", title: "Refused", hint: "packets that were refused", class: "number", text: (r) => number(r.refused), order: (r) => -r.refused },
        { key: "by", title: "Selected by", text: (r) => r.by.join(", ") || "–" },
        { key: "addresses", title: "Addresses", class: "mono", text: (r) => r.addresses?.join("  ") ?? "" },
      ],
    });
    panel.append(summary, notAnswered, idle, table.element);
    return tableByNode(table, "policies", {
      most: mostNodes,
      changed(found) {
        const rows = rowsOf(found.nodes);
        const answered = found.nodes.filter((n) => n.says);
        show(summary, answered.length ? `${number(rows.filter((r) => r.by.length).length)} of ${count(rows.length, "pod")} are selected by a policy; ${count(rows.reduce((sum, r) => sum + r.refused, 0), "packet")} refused` : "Nothing is known of policies.");
        notAnswered.replaceChildren(...faults(found.nodes));
        const unused = new Map(answered.flatMap((n) => n.says.idle ?? []).map((f) => [`${f.policy} ${f.fault}`, f]));
        idle.replaceChildren(...[...unused.values()].map((f) => h("p", { class: "fault" }, h("b", null, f.policy), ` ${f.fault}`)));
        table.set(rows);
      },
      failed: (why) => show(summary, why),
    });
  },
};

function rowsOf(nodes) {
  const rows = [];
  for (const n of nodes) {
    for (const p of n.says?.pods ?? []) {
      const sides = Object.fromEntries((p.directions ?? []).map((d) => [d.direction, d]));
      const by = [...new Set((p.directions ?? []).flatMap((d) => d.policies))];
      rows.push({ ...p, node: n.node, key: `${n.node} ${p.pod}`, ingress: sides.ingress, egress: sides.egress, by, refused: (p.directions ?? []).reduce((sum, d) => sum + d.refused, 0) });
    }
  }
  return rows;
}

function sideText(d) {
  if (!d || (!d.isolated && d.policies.length === 0)) return "open";
  return `${d.isolated ? "only by" : "open, and"} ${count(d.allows.length, "rule")}`;
}

function sideBadge(d) {
  if (!d || (!d.isolated && d.policies.length === 0)) return h("span", { class: "muted" }, "open");
  return badge(d.isolated ? "closed" : "idle", sideText(d));
}

function policyDrawer(page, r, closed) {
  page.drawer.open(`policy ${r.key}`, r.pod, () => [
    h("p", { class: "muted mono" }, r.addresses?.join("  ")),
    !r.known && h("p", { class: "fault" }, "Nothing is known of it yet: it stays closed until then where policies may be about it."),
    ["ingress", "egress"].map((direction) => {
      const d = r[direction];
      return h("section", null, h("h3", null, direction === "ingress" ? "To it (ingress)" : "From it (egress)"),
        !d || d.policies.length === 0 ? h("p", { class: "muted" }, d?.isolated ? "closed" : "No policy selects it: everything passes.") : [
          h("p", null, "Selected by ", d.policies.join(", "), "."),
          h("ul", { class: "plain-list" }, d.allows.map((rule) => h("li", null, rule))),
          h("p", { class: "muted" }, `${d.isolated ? "The rest is refused" : "What no rule is about passes"}; ${count(d.refused, "packet")} refused.`),
        ]);
    }),
  ], closed);
}
