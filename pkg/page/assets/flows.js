// The flows of a pod that take the fast path.

import { Feed, ask } from "./data.js";
import { h } from "./dom.js";
import { ago, bytes, number } from "./words.js";

// podFlows asks for a pod's flows until it is closed; changed is called when there is news.
export function podFlows(pod, node, changed) {
  let said = null, fault = "";
  const feed = new Feed(ask("flows", node, pod), {
    changed(found) {
      ({ says: said = null, fault = "" } = found.nodes[0] ?? {});
      changed();
    },
    failed(why) {
      fault = why;
      changed();
    },
  });
  feed.start();
  return { render: () => render(pod, said, fault), close: () => feed.stop() };
}

function render(pod, said, fault) {
  const title = h("h3", null, "Flows on the fast path");
  if (fault) return [title, h("p", { class: "fault" }, fault)];
  if (!said) return [title, h("p", { class: "muted" }, "Asking for its flows…")];
  if (said.because) return [title, h("p", { class: "muted" }, `None: the node's data path is the kernel's, because ${said.because}.`)];
  const flows = said.flows ?? [];
  if (!flows.length) return [title, h("p", { class: "muted" }, "None now: what is short, or translated here, takes the kernel's path.")];
  return [title,
    h("table", { class: "plain-table", "aria-label": "Flows on the fast path" },
      h("thead", null, h("tr", null, ["With", "Bytes out / in", "Age"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, flows.map((f) => line(pod, f)))),
    said.more > 0 && h("p", { class: "muted" }, `and ${number(said.more)} more with fewer bytes`)];
}

function line(pod, f) {
  const first = f.fromPod === pod;
  const [own, other, name, node, out, back] = first ? [f.from, f.to, f.toPod, f.toNode, f.there, f.back] : [f.to, f.from, f.fromPod, f.fromNode, f.back, f.there];
  return h("tr", null,
    h("th", { scope: "row" }, name || h("span", { class: "mono" }, other), h("div", { class: "muted mono way" }, `${f.protocol} ${own} – ${other}`), node && h("div", { class: "muted" }, `on ${node}`)),
    h("td", null, `${bytes(out.bytes)} / ${bytes(back.bytes)}`),
    h("td", null, ago(f.since), !f.active && h("div", { class: "muted" }, "not yet fast in both directions")));
}
