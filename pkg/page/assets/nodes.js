// All nodes, and how they are joined.

import { Feed, ask } from "./data.js";
import { badge, h } from "./dom.js";
import { Matrix } from "./matrix.js";
import { nodeDrawer } from "./node.js";
import { draw as drawPicture } from "./picture.js";
import { Table } from "./table.js";
import { ago, kindOf, number } from "./words.js";

// mostAsked is with how many nodes all are asked for all their peers.
const mostAsked = 500;

export const nodes = {
  name: "nodes",
  title: "Nodes",
  count: (o) => number(o.nodes.length),
  open(panel, page) {
    const picture = h("section", { class: "picture", "aria-label": "How the nodes are joined" });
    let told = null;
    const table = new Table({
      label: "Nodes", noun: (n) => (n === 1 ? "node" : "nodes"), filterHint: "name, state, address, version …",
      key: (n) => n.name,
      open(n) {
        nodeDrawer(page, n.name, () => table.choose(""));
        table.choose(n.name);
      },
      columns: [
        { key: "name", title: "Node", text: (n) => n.name },
        { key: "state", title: "State", text: (n) => n.state, order: (n) => `${n.wrong ? 0 : n.unknown ? 1 : 2} ${n.state}`, cell: (n) => badge(kindOf(n), n.state) },
        { key: "problems", title: "Problems", class: "number", text: (n) => (n.problems ? number(n.problems) : "–"), order: (n) => n.problems },
        { key: "pods", title: "Pods", class: "number", text: (n) => (n.version ? number(n.pods) : "–"), order: (n) => n.pods },
        { key: "used", title: "IPv4 in use", text: used, order: share, cell: usedBar, class: "used" },
        { key: "peers", title: "Peers", text: (n) => (n.joined ?? []).map((g) => `${number(g.peers)} ${g.mode}`).join(", ") || "–" },
        { key: "addresses", title: "Addresses", class: "mono", text: (n) => n.addresses?.join("  ") || "–" },
        { key: "podCIDRs", title: "Pod CIDRs", class: "mono", text: (n) => n.podCIDRs?.join("  ") || "–" },
        { key: "fabric", title: "Fabric", text: (n) => [n.fabric, n.podMTU].filter(Boolean).join(", MTU ") || "–" },
        { key: "version", title: "Version", text: (n) => n.version || "–" },
        { key: "up", title: "Up", class: "number", text: (n) => (n.since ? ago(n.since) : "–"), order: (n) => -Date.parse(n.since ?? 0) },
      ],
    });
    panel.append(picture, table.element);
    const draw = () => {
      if (told && page.overview) picture.replaceChildren(...drawPicture(new Matrix(told, page.overview), page.overview, (name) => nodeDrawer(page, name)));
    };
    let feed = null;
    return {
      update(o) {
        table.set(o.nodes);
        if (!feed && o.nodes.length <= mostAsked) {
          feed = new Feed(ask("peers"), { changed: (found) => { told = found; draw(); } });
          feed.start();
        } else if (!feed) {
          picture.replaceChildren(h("p", { class: "muted" }, `With more than ${number(mostAsked)} nodes, how they are joined is shown of one at a time: choose it below.`));
        }
        draw();
        page.drawer.refresh();
      },
      placed: () => table.placed(),
      rest: (hidden) => (hidden ? feed?.stop() : feed?.start()),
      close() {
        feed?.stop();
        table.close();
      },
    };
  },
};

const v4 = (n) => n.usage?.find((u) => u.family === "IPv4");

function used(n) {
  const u = v4(n);
  return u ? `${number(u.used)}${u.total ? ` of ${number(u.total)}` : ""}` : "–";
}

const share = (n) => (v4(n)?.total ? v4(n).used / v4(n).total : -1);

function usedBar(n) {
  const part = share(n);
  return [h("span", null, used(n)), part >= 0 && h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${Math.max(2, part * 100)}%` } }))].filter(Boolean);
}
