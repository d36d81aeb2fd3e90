// Details of one node.

import { Feed, ask } from "./data.js";
import { badge, h } from "./dom.js";
import { facts } from "./drawer.js";
import { coded } from "./overview.js";
import { stateOf } from "./states.js";
import { ago, fastShare, kindOf, natural, number, stateWords, trip, usedWords } from "./words.js";

// nodeDrawer shows a node, and how it is joined to the others.
export function nodeDrawer(page, name, closed) {
  const state = { row: null, names: [], fault: "" };
  const feed = new Feed(ask("peers", name), {
    changed(found) {
      state.names = found.names ?? [];
      state.row = found.nodes[0]?.says ?? null;
      state.fault = found.nodes[0]?.fault ?? "";
      page.drawer.refresh();
    },
    failed(why) {
      state.fault = why;
      page.drawer.refresh();
    },
  });
  const known = () => page.overview?.nodes.find((n) => n.name === name);
  page.drawer.open(`node ${name}`, name, () => details(page, known(), state), () => {
    feed.stop();
    closed?.();
  });
  if (known()?.answers) feed.start();
}

// nodeChip is a button that shows a node; keep is its name for the focus, where the part of
// the page that it is in is drawn anew.
export function nodeChip(page, name, keep = "node") {
  return h("button", { type: "button", class: "chip", "data-keep": keep, click: () => nodeDrawer(page, name) }, name);
}

function details(page, n, state) {
  if (!n) return h("p", null, "The node is not there any more.");
  const own = page.overview.findings.filter((f) => f.nodes.includes(n.name));
  return [
    h("p", { class: "drawer-state" }, badge(kindOf(n), stateWords(n)), n.reason && h("span", null, " ", n.reason)),
    n.advice && h("p", { class: "advice" }, ...coded(n.advice)),
    own.length > 0 && h("section", null, h("h3", null, "Problems"), own.map((f) => h("div", { class: "finding small" }, h("p", { class: "text" }, f.text), f.advice && h("p", { class: "advice" }, ...coded(f.advice))))),
    facts([
      ["flatnetd", n.version && `${n.version}, up ${ago(n.since)}`],
      ["addresses", n.addresses?.join("  ")],
      ["podCIDRs", n.podCIDRs?.join("  ")],
      ["fabric", n.fabric],
      ["pod MTU", n.podMTU || ""],
      ["data path", pathWords(n.dataPath)],
      ["BGP", n.bgp && `${number(n.bgp.established)} of ${number(n.bgp.peers)} sessions established`],
      ["load balancers", n.balancer && `answers for ${number(n.balancer.here)} of their addresses`],
      ...(n.usage ?? []).map((u) => [`${u.family} of pods`, `${usedWords(u)} used${u.cooling ? `, ${number(u.cooling)} cooling` : ""}`]),
    ]),
    n.answers && h("p", { class: "links" },
      n.bgp && h("button", { type: "button", class: "chip", click: () => page.go("bgp", { node: n.name }) }, "its sessions"),
      h("button", { type: "button", class: "chip", click: () => page.go("pods", { filter: n.name }) }, "its pods"),
      h("button", { type: "button", class: "chip", click: () => page.go("policies", { node: n.name }) }, "its policies")),
    n.answers && peers(state),
  ];
}

// pathWords say which way packets of established flows take, and how many of them.
function pathWords(path) {
  if (!path?.path) return "";
  if (path.because) return `${path.path}, because ${path.because}`;
  const share = fastShare(path);
  return [path.path, `${number(path.flows ?? 0)} flows`, share && `${share} of packets take the fast path`].filter(Boolean).join(", ");
}

// peers is how the node is joined to each of the others, the worst first.
function peers(state) {
  if (state.fault) return h("p", { class: "fault" }, state.fault);
  if (!state.row) return h("p", { class: "muted" }, "Asking it for its peers…");
  const all = (state.row.ways ?? []).map((p) => ({ ...p, name: state.names[p.peer], state: stateOf(state.row.states[p.peer]), trip: state.row.trips[p.peer], loss: state.row.losses?.[p.peer] }));
  all.sort((a, b) => a.state.rank - b.state.rank || natural(a.name, b.name));
  const shown = all.slice(0, 100);
  return h("section", null, h("h3", null, `Peers (${number(all.length)})`),
    h("table", { class: "plain-table", "aria-label": "Peers" },
      h("thead", null, h("tr", null, ["Peer", "Routes", "Health"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, shown.map((p) => h("tr", null,
        h("th", { scope: "row" }, p.name),
        h("td", null, p.ways.map(wayLine)),
        h("td", null, badge(p.state.kind, p.state.word), h("div", { class: "muted" }, [p.trip ? trip(p.trip) : "", lossWords(p.loss)].filter(Boolean).join(", ")))))),
    ),
    all.length > shown.length && h("p", { class: "muted" }, `and ${number(all.length - shown.length)} more; the Health view has all`));
}

// routeWords say how a route leads; what is not known is left empty.
export const routeWords = (w) => [w.mode || "no route", w.via && `via ${w.via}`, w.link && `dev ${w.link}`];

const wayLine = (w) => h("div", { class: "way" }, h("code", null, w.podCIDR), " ", [...routeWords(w), w.mode && !w.present && "MISSING"].filter(Boolean).join(" "));

export const lossWords = (l) => (l?.lost ? `${l.lost} of ${l.sent} lost` : "");
