// The matrix of many nodes: a picture with a dot for each way, or for several, of which
// the worst is shown. What is not well is large and has a shape, too.

import { h, show } from "./dom.js";
import { words } from "./health.js";
import { isBad, stateOf } from "./states.js";
import { count } from "./words.js";

const smallest = 2; // pixels of a cell
const axis = { left: 46, top: 18 }; // room for the names of some nodes
const mark = 3; // pixels from the middle of a cross to its ends

export class Field {
  constructor(pick) {
    Object.assign(this, { pick, at: null });
    this.canvas = h("canvas", {
      tabindex: 0, role: "application", "aria-roledescription": "matrix", "aria-label": "Health of all paths: arrow keys move from path to path, with Shift to the next one with a problem, Enter shows details",
      keydown: (event) => this.key(event), mousemove: (event) => this.point(event), mouseleave: () => this.leave(), click: () => this.at && this.pick(this.matrix.cell(this.matrix.from[this.at[0]], this.at[1])), focus: () => this.focus(),
    });
    this.says = h("p", { class: "cell-says", role: "status", "aria-live": "polite" }, "Point at a dot, or use the arrow keys.");
    const legend = h("ul", { class: "legend" }, [["field-ok", "", "ok, by plain routes"], ["field-tunnel", "", "ok, through the tunnel"], ["unknown", "", "not known"], ["bad", "✕", "bad"], ["warn", "△", "lossy"]].map(([kind, sign, text]) => h("li", null, h("span", { class: `swatch ${kind}`, "aria-hidden": "true" }, sign), text)));
    this.element = h("div", { class: "field" }, this.says, legend, this.canvas);
    // In the next frame: whoever closes what was beside it sees that at once.
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.draw()));
    this.resized.observe(this.element);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.draw();
    this.scheme.addEventListener("change", this.redraw);
  }

  close() {
    this.resized.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
  }

  set(matrix, sum) {
    this.matrix = matrix;
    this.bad = sum.bad;
    this.picture = null;
    this.draw();
  }

  // draw paints the picture once for what is known, and what is pointed at over it.
  draw() {
    if (!this.matrix) return;
    const room = Math.max(300, Math.min(this.element.clientWidth, innerHeight - this.canvas.getBoundingClientRect().top - 20, 1000) - axis.left);
    const scale = devicePixelRatio || 1;
    const n = this.matrix.names.length;
    this.per = Math.max(1, Math.ceil((n * smallest) / room)); // nodes to a dot
    const across = Math.ceil(n / this.per), down = Math.ceil(this.matrix.from.length / this.per);
    this.size = Math.max(smallest, Math.min(28, room / across));
    if (this.size > 4) this.size = Math.floor(this.size);
    const width = Math.ceil(this.size * across) + axis.left, height = Math.ceil(Math.max(this.size * down, 12)) + axis.top;
    const key = `${width} ${height} ${scale} ${this.scheme.matches}`;
    if (!this.picture || this.paintedAs !== key) {
      this.paintedAs = key;
      this.picture = this.paint(across, down, width, height, scale);
    }
    const { canvas } = this;
    [canvas.width, canvas.height] = [width * scale, height * scale];
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const c = canvas.getContext("2d");
    c.drawImage(this.picture, 0, 0);
    if (this.at) this.cross(c, scale, width, height);
  }

  paint(across, down, width, height, scale) {
    const picture = document.createElement("canvas");
    [picture.width, picture.height] = [width * scale, height * scale];
    const c = picture.getContext("2d");
    c.scale(scale, scale);
    const style = getComputedStyle(this.element);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const fills = { ok: color("field-ok"), tunnel: color("field-tunnel"), joined: color("dot-joined"), self: color("dot-self"), idle: color("dot-idle"), unknown: color("dot-unknown"), warn: color("warn"), bad: color("bad") };
    c.fillStyle = color("muted");
    c.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    this.names(c, across, down);
    c.translate(axis.left, axis.top);
    const gap = this.size > 4 ? 1 : 0;
    const bad = [];
    const edge = (k) => Math.round(k * this.size);
    for (let i = 0; i < down; i++) {
      const states = this.worst(i, across);
      const row = states.map((s) => fills[s.tunnel ? "tunnel" : s.state.kind]);
      states.forEach((s, j) => isBad(s.state) && bad.push([i, j, s.state]));
      // What is of one colour and has no gap is painted at once.
      for (let j = 0, end; j < across; j = end) {
        for (end = j + 1; gap === 0 && end < across && row[end] === row[j]; end++);
        c.fillStyle = row[j];
        c.fillRect(edge(j), edge(i), edge(end) - edge(j) - gap, edge(i + 1) - edge(i) - gap);
      }
    }
    c.lineWidth = 1.6;
    for (const [i, j, state] of bad) this.sign(c, (j + 0.5) * this.size, (i + 0.5) * this.size, state, fills, color("surface"));
    return picture;
  }

  // names are those of some nodes along the edges.
  names(c, across, down) {
    const every = Math.max(1, Math.ceil(52 / this.size));
    const short = (name) => (name.length > 7 ? `…${name.slice(-6)}` : name);
    c.textBaseline = "middle";
    for (let j = 0; j < across; j += every) c.fillText(short(this.matrix.names[j * this.per]), axis.left + j * this.size, axis.top / 2);
    const rows = Math.max(1, Math.ceil(26 / this.size));
    c.textAlign = "right";
    for (let i = 0; i < down; i += rows) c.fillText(short(this.matrix.from[i * this.per]), axis.left - 5, axis.top + Math.max((i + 0.5) * this.size, i * this.size + 5));
    c.textAlign = "left";
  }

  // worst are the worst states of the ways of a row of dots.
  worst(i, across) {
    const { matrix: m, per } = this;
    const worst = new Array(across);
    for (let a = i * per; a < Math.min((i + 1) * per, m.from.length); a++) {
      const row = m.row(m.from[a]);
      for (let b = 0; b < m.names.length; b++) {
        const at = Math.floor(b / per);
        const state = stateOf(row.state(b));
        if (!worst[at] || state.rank < worst[at].state.rank) worst[at] = { state, tunnel: state.kind === "ok" && row.mode(b) === "v" };
      }
    }
    return worst;
  }

  sign(c, x, y, state, fills, ground) {
    if (this.bad.length > 4000 || this.size < 3 && this.bad.length > 500) return; // more signs than picture
    const r = Math.max(mark, this.size / 2 - 1);
    c.fillStyle = ground;
    c.fillRect(x - r - 1, y - r - 1, 2 * r + 2, 2 * r + 2);
    c.strokeStyle = fills[state.kind];
    c.beginPath();
    if (state.kind === "bad") {
      c.moveTo(x - r, y - r); c.lineTo(x + r, y + r); c.moveTo(x + r, y - r); c.lineTo(x - r, y + r);
    } else {
      c.moveTo(x, y - r); c.lineTo(x + r, y + r); c.lineTo(x - r, y + r); c.closePath();
    }
    c.stroke();
  }

  // cross marks the row and the column that are pointed at.
  cross(c, scale, width, height) {
    const [i, j] = [Math.floor(this.at[0] / this.per), Math.floor(this.at[1] / this.per)];
    c.save();
    c.scale(scale, scale);
    c.strokeStyle = getComputedStyle(this.element).getPropertyValue("--focus").trim();
    c.lineWidth = 1;
    c.strokeRect(axis.left + 0.5, axis.top + i * this.size - 0.5, width - axis.left - 1, this.size + 1);
    c.strokeRect(axis.left + j * this.size - 0.5, axis.top + 0.5, this.size + 1, height - axis.top - 1);
    c.restore();
  }

  point(event) {
    if (!this.matrix) return;
    const box = this.canvas.getBoundingClientRect();
    this.go(Math.floor((event.clientY - box.top - axis.top) / this.size) * this.per, Math.floor((event.clientX - box.left - axis.left) / this.size) * this.per);
  }

  leave() {
    if (document.activeElement !== this.canvas) this.at = null;
    this.draw();
  }

  focus() {
    if (!this.at && this.matrix) this.go(0, 1);
  }

  go(i, j) {
    const m = this.matrix;
    const to = [Math.max(0, Math.min(m.from.length - 1, i)), Math.max(0, Math.min(m.names.length - 1, j))];
    if (this.at && to[0] === this.at[0] && to[1] === this.at[1]) return;
    this.at = to;
    const more = this.per > 1 ? ` (the first of ${count(this.per * this.per, "path")} of this dot)` : "";
    show(this.says, words(m.cell(m.from[to[0]], to[1])) + more);
    requestAnimationFrame(() => this.draw());
  }

  key(event) {
    const [i, j] = this.at ?? [0, 0];
    const step = this.per;
    const to = { ArrowRight: [i, j + step], ArrowLeft: [i, j - step], ArrowDown: [i + step, j], ArrowUp: [i - step, j], Home: [i, 0], End: [i, Infinity] }[event.key];
    if (event.key === "Enter" && this.at) this.pick(this.matrix.cell(this.matrix.from[i], j));
    if (!to) return;
    event.preventDefault();
    if (event.shiftKey && this.bad.length) {
      // Those that are not well, in the order of the table.
      this.badAt = ((this.badAt ?? -1) + (event.key === "ArrowLeft" || event.key === "ArrowUp" ? -1 : 1) + this.bad.length) % this.bad.length;
      const b = this.bad[this.badAt];
      this.go(this.matrix.from.indexOf(b.from), this.matrix.names.indexOf(b.to));
      return;
    }
    this.go(...to);
  }
}
