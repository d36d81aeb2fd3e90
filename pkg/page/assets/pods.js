// The pods of all nodes, with their addresses.

import { Feed, ask } from "./data.js";
import { badge, h, show } from "./dom.js";
import { facts } from "./drawer.js";
import { podFlows } from "./flows.js";
import { nodeChip } from "./node.js";
import { Chooser, faults } from "./parts.js";
import { Table } from "./table.js";
import { ago, number, rate } from "./words.js";

export const pods = {
  name: "pods",
  title: "Pods",
  count: (o) => number(o.nodes.reduce((sum, n) => sum + n.pods, 0)),
  open(panel, page) {
    let told = null;
    const notAnswered = h("div");
    const chooser = new Chooser({ most: Infinity, changed: () => fill() });
    const table = new Table({
      label: "Pods", noun: (n) => (n === 1 ? "pod" : "pods"), filterHint: "namespace/name, address, port …", key: keyOf,
      open(p) {
        podDrawer(page, p, () => table.choose(""));
        table.choose(keyOf(p));
      },
      columns: [
        { key: "pod", title: "Pod", text: (p) => p.pod },
        { key: "node", title: "Node", text: (p) => p.node },
        { key: "addresses", title: "Addresses", class: "mono", text: (p) => p.addresses.join("  ") },
        { key: "ports", title: "Host ports", class: "mono", text: (p) => p.ports?.join(", ") ?? "–" },
        { key: "rates", found: false, title: "Rates in/out", hint: "bits per second that it may receive and send", text: rates, order: (p) => p.ingress ?? 0 },
        { key: "interface", title: "Interface", class: "mono", text: (p) => p.interface },
        { key: "since", title: "Since", found: false, class: "number", text: (p) => ago(p.since), order: (p) => -Date.parse(p.since) },
        { key: "wrong", title: "Wrong", text: (p) => p.wrong?.map((w) => w.split(":")[0]).join(", ") ?? "–", order: (p) => -(p.wrong?.length ?? 0), cell: (p) => (p.wrong ? badge("bad", p.wrong.map((w) => w.split(":")[0]).join(", ")) : "–") },
      ],
    });
    table.tools.prepend(chooser.element);
    const waiting = h("p", { class: "muted", role: "status" }, "Asking the nodes for their pods…");
    panel.append(waiting, notAnswered, table.element);
    const fill = () => {
      if (!told) return;
      const all = [];
      for (const n of told.nodes) {
        if (!n.says || (chooser.node && chooser.node !== n.node)) continue;
        for (const p of n.says) {
          p.node = n.node;
          all.push(p);
        }
      }
      waiting.hidden = true;
      notAnswered.replaceChildren(...faults(told.nodes));
      table.set(all);
    };
    const feed = new Feed(ask("pods"), { changed: (found) => { told = found; fill(); }, failed: (why) => { waiting.hidden = false; show(waiting, why); } });
    feed.start();
    return {
      update(o) {
        const before = chooser.node, who = chooser.names;
        chooser.set(o);
        if (chooser.node !== before) fill();
        // Who answers is another one now: ask at once.
        if (who && who !== chooser.names) feed.ask();
      },
      placed() {
        table.placed();
        chooser.placed();
      },
      rest: (hidden) => (hidden ? feed.stop() : feed.start()),
      close() {
        feed.stop();
        table.close();
      },
    };
  },
};

const keyOf = (p) => `${p.node} ${p.pod} ${p.interface}`;

const rates = (p) => (p.ingress || p.egress ? `${rate(p.ingress)} / ${rate(p.egress)}` : "–");

function podDrawer(page, p, closed) {
  // What has no name of a pod is an attachment of something else's.
  const flows = p.pod.includes("/") && podFlows(p.pod, p.node, () => page.drawer.refresh());
  page.drawer.open(`pod ${keyOf(p)}`, p.pod, () => [
    p.wrong?.map((w) => h("p", { class: "fault" }, w)),
    facts([
      ["node", nodeChip(page, p.node)],
      ["addresses", h("span", { class: "mono" }, p.addresses.join("  "))],
      ["interface on the node", p.interface],
      ["host ports", p.ports?.join(", ")],
      ["rates", p.ingress || p.egress ? `${rate(p.ingress)} to it, ${rate(p.egress)} from it, in bits per second` : "none"],
      ["since", `${ago(p.since)} (${new Date(p.since).toISOString().slice(0, 19).replace("T", " ")} UTC)`],
    ]),
    h("p", { class: "links" }, h("button", { type: "button", class: "chip", click: () => page.go("policies", { node: p.node, filter: p.pod }) }, "its policies")),
    flows && flows.render(),
  ], () => {
    flows && flows.close();
    closed?.();
  });
}
