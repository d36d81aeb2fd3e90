// Services and where connections to them go, as one node has them.

import { badge, h, show } from "./dom.js";
import { facts } from "./drawer.js";
import { tableByNode } from "./parts.js";
import { Table } from "./table.js";
import { duration, number } from "./words.js";

export const services = {
  name: "services",
  title: "Services",
  open(panel, page) {
    const summary = h("p", { class: "summary", role: "status" }, "Asking a node for its Services…");
    const conflicts = h("div");
    const table = new Table({
      label: "Services", noun: (n) => (n === 1 ? "address and port" : "addresses and ports"), filterHint: "namespace/name, address, endpoint …", key: (r) => r.key,
      open(r) {
        serviceDrawer(page, r, () => table.choose(""));
        table.choose(r.key);
      },
      columns: [
        { key: "service", title: "Service", text: (r) => r.name },
        { key: "address", title: "Address", class: "mono", text: (r) => `${r.front.address}/${r.port.protocol}` },
        { key: "kind", title: "Kind", text: (r) => r.front.kind },
        { key: "policy", title: "Policy", text: (r) => r.front.policy },
        { key: "endpoints", title: "Endpoints", class: "mono", text: (r) => ends(r), order: (r) => r.port.endpoints?.length ?? 0 },
        { key: "here", title: "Here", hint: "endpoints on this node", class: "number", text: (r) => number(r.port.local?.length ?? 0), order: (r) => r.port.local?.length ?? 0 },
        { key: "leads", title: "Leads", text: (r) => r.front.leads, cell: (r) => badge(r.front.leads === "to endpoints" ? "ok" : r.front.leads.startsWith("refused") ? "bad" : "warn", r.front.leads) },
      ],
    });
    panel.append(summary, conflicts, table.element);
    return tableByNode(table, "services", {
      changed(found) {
        const { says, fault } = found.nodes[0] ?? {};
        summary.className = fault ? "summary fault" : "summary";
        show(summary, fault ?? sentence(says));
        conflicts.replaceChildren(...(says?.conflicts ?? []).map((c) => h("p", { class: "fault" }, `${c.front} leads to ${c.holder}, and not to ${c.losers.join(", ")}`)));
        table.set(rowsOf(says));
      },
      failed: (why) => show(summary, why),
    });
  },
};

function rowsOf(says) {
  const rows = [];
  for (const port of says?.ports ?? []) {
    const name = port.service + (port.port ? `:${port.port}` : "");
    for (const front of port.fronts ?? []) rows.push({ name, port, front, key: `${name} ${front.address} ${port.protocol}` });
  }
  return rows;
}

const shownEnds = 3;

function ends(r) {
  const all = r.port.endpoints ?? [];
  if (all.length <= shownEnds) return all.join(" ") || "none";
  return `${number(all.length)}: ${all.slice(0, shownEnds).join(" ")} …`;
}

function sentence(says) {
  const names = new Set((says.ports ?? []).map((p) => p.service));
  const endpoints = new Set((says.ports ?? []).flatMap((p) => p.endpoints ?? []));
  const parts = [`As node ${says.node} has them: ${number(names.size)} Services with ${number(endpoints.size)} endpoints`, says.synced ? "the rules are as wanted" : "the rules are NOT YET as wanted"];
  if (says.source) parts.push(says.source);
  return parts.join("; ");
}

function serviceDrawer(page, r, closed) {
  const local = new Set(r.port.local ?? []);
  const all = r.port.endpoints ?? [];
  page.drawer.open(`service ${r.key}`, r.name, () => [
    facts([
      ["address", h("span", { class: "mono" }, `${r.front.address}/${r.port.protocol}`)],
      ["kind", r.front.kind],
      ["traffic policy", r.front.policy],
      ["only from", r.front.sources?.join(", ")],
      ["leads", r.front.leads],
      ["affinity", r.port.affinity ? duration(r.port.affinity / 1e9) : ""],
    ]),
    h("h3", null, `Endpoints (${number(all.length)})`),
    h("ul", { class: "plain-list mono" }, all.slice(0, 500).map((e) => h("li", null, e, local.has(e) && h("span", { class: "muted" }, "  on this node")))),
    all.length > 500 && h("p", { class: "muted" }, `and ${number(all.length - 500)} more`),
  ], closed);
}
