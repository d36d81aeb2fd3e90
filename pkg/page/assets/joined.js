// The picture of how the nodes are joined, asked for as long as it is shown.

import { Feed, ask } from "./data.js";
import { h } from "./dom.js";
import { Matrix } from "./matrix.js";
import { nodeDrawer } from "./node.js";
import { draw } from "./picture.js";
import { number } from "./words.js";

export class Joined {
  // most is the number of nodes up to which all are asked for all their peers.
  constructor(page, most, instead = false) {
    Object.assign(this, { page, most, instead });
    this.drawn = null; // is told of the matrix
    this.element = h("section", { class: "picture", "aria-label": "How the nodes are joined" });
  }

  update(overview) {
    const wanted = overview.nodes.length > 1 && overview.nodes.length <= this.most;
    if (wanted && !this.feed) {
      this.feed = new Feed(ask("peers"), { changed: (found) => { this.told = found; this.draw(); } });
      this.feed.start();
    } else if (!wanted && this.instead && overview.nodes.length > 1) {
      this.element.replaceChildren(h("p", { class: "muted" }, `With more than ${number(this.most)} nodes, how they are joined is shown of one at a time: choose it below.`));
    }
    this.draw();
  }

  draw() {
    const { overview } = this.page;
    if (!this.told || !overview) return;
    const matrix = new Matrix(this.told, overview);
    this.element.replaceChildren(...draw(matrix, overview, (name) => nodeDrawer(this.page, name)));
    this.drawn?.(matrix);
  }

  rest(hidden) {
    if (hidden) this.feed?.stop();
    else this.feed?.start();
  }

  close() {
    this.feed?.stop();
  }
}
