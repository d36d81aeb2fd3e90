// The page: its views, which of them is shown, and what all of them share.

import { Feed } from "./data.js";
import { h, show } from "./dom.js";
import * as place from "./place.js";
import { duration } from "./words.js";
import { Drawer } from "./drawer.js";
import { overview } from "./overview.js";
import { nodes } from "./nodes.js";
import { health } from "./health.js";
import { pods } from "./pods.js";
import { services } from "./services.js";
import { policies } from "./policies.js";
import { bgp } from "./bgp.js";
import { balancers } from "./balancers.js";

// A view is {name, title, count(overview), open(panel, page) → {update(overview), close()}}.
const views = [overview, nodes, health, pods, services, policies, bgp, balancers];
const by = (id) => document.getElementById(id);

const page = {
  overview: null,
  drawer: new Drawer(by("drawer")),
  // say has a screen reader say something.
  say: (text) => show(by("said"), text),
  // go shows another view.
  go(view, query = {}) {
    const text = new URLSearchParams(query).toString();
    location.hash = `#${view}${text ? "?" + text : ""}`;
  },
};

let open = null; // the view that is shown: {view, parts}
let taken = 0; // when what is shown was found out
let failure = "";

const tabs = views.map((view, i) => {
  const number = h("span", { class: "number" });
  const tab = h("button", {
    role: "tab", id: `tab-${view.name}`, type: "button", "aria-controls": "panel", "aria-selected": "false", tabindex: "-1",
    click: () => page.go(view.name), keydown: (event) => move(event, i),
  }, view.title, number);
  by("tabs").append(tab);
  return { tab, number };
});

// move goes to another tab by the keys that are usual for it.
function move(event, from) {
  const to = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: 0, End: views.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const i = (to + views.length) % views.length;
  tabs[i].tab.focus();
  page.go(views[i].name);
}

function showView() {
  const { view: wanted } = place.read();
  const view = views.find((v) => v.name === wanted) ?? views[0];
  if (open?.view === view) {
    open.parts.placed?.();
    return;
  }
  open?.parts.close?.();
  page.drawer.close(false);
  const panel = by("panel");
  panel.replaceChildren();
  panel.className = `panel ${view.name}`;
  panel.setAttribute("aria-labelledby", `tab-${view.name}`);
  views.forEach((v, i) => {
    tabs[i].tab.setAttribute("aria-selected", String(v === view));
    tabs[i].tab.tabIndex = v === view ? 0 : -1;
  });
  document.title = `${view.title} – flatnet`;
  open = { view, parts: view.open(panel, page) };
  if (page.overview) open.parts.update(page.overview);
}

const feed = new Feed("data", {
  changed(found) {
    failure = "";
    page.overview = found;
    const headline = by("headline");
    headline.className = `headline ${{ fine: "ok", wrong: "bad", unknown: "unknown" }[found.state]}`;
    show(headline, found.headline);
    show(by("said"), found.headline); // said once, as long as it stays the same
    show(by("of"), found.name ? `${found.of} ${found.name}` : found.of);
    views.forEach((v, i) => show(tabs[i].number, v.count?.(found) ?? ""));
    open?.parts.update(found);
  },
  asked(at) {
    failure = "";
    taken = at;
    tick();
  },
  failed(why) {
    failure = why;
    if (!page.overview) show(by("headline"), "Nothing is known yet");
    page.say(why);
    tick();
  },
});

// tick says how old it is what is shown.
function tick() {
  const live = by("live");
  live.className = `live${failure ? " failed" : ""}`;
  const seconds = Math.round((Date.now() - taken) / 1000);
  const age = !taken ? "" : seconds < 2 ? "now" : `${duration(seconds)} ago`;
  show(by("age"), failure ? `${failure}${age ? `; what is shown is as of ${age}` : ""}` : age ? `as of ${age}` : "connecting");
}

// Nobody is asked while nobody looks.
function watch() {
  if (document.hidden) {
    feed.stop();
    open?.parts.rest?.(true);
  } else {
    feed.start();
    open?.parts.rest?.(false);
  }
}

by("skip").addEventListener("click", (event) => {
  event.preventDefault();
  by("panel").focus();
});
addEventListener("hashchange", showView);
document.addEventListener("visibilitychange", watch);
setInterval(tick, 1000);
showView();
watch();

