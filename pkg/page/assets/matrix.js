// How each node reaches each other one, as the agents say it.

import { isBad, modeOf, stateOf } from "./states.js";
import { natural } from "./words.js";

export class Matrix {
  // told is what agents say of their peers; overview is which nodes there are.
  constructor(told, overview) {
    const known = told.names ?? [];
    const number = new Map(known.map((name, i) => [name, i]));
    this.rowOf = new Map(told.nodes.map((n) => [n.node, n]));
    const listed = overview.nodes.filter((n) => n.state !== "not selected").map((n) => n.name);
    this.names = [...new Set([...listed, ...known])].sort(natural);
    this.number = this.names.map((name) => number.get(name) ?? -1);
    // Of one node alone there is one row.
    this.from = overview.of === "node" ? this.names.filter((name) => this.rowOf.has(name)) : this.names;
  }

  // letter is the state of the way from a node to the one at a place in the names.
  letter(from, to) {
    return this.row(from).state(to);
  }

  // row is what a node says of all others, by their places in the names: letters of
  // states, and of modes.
  row(from) {
    const says = this.rowOf.get(from)?.says;
    return {
      state: (to) => (from === this.names[to] ? "-" : says ? says.states[this.number[to]] ?? "-" : "?"),
      mode: (to) => says?.modes[this.number[to]] ?? "-",
    };
  }

  // cell is all that is known of it.
  cell(from, to) {
    const name = this.names[to];
    const row = this.rowOf.get(from);
    const at = this.number[to];
    return {
      from, to: name, state: stateOf(this.letter(from, to)), mode: modeOf(row?.says?.modes[at]), trip: row?.says?.trips[at] ?? 0,
      loss: row?.says?.losses?.[at], ways: row?.says?.ways?.find((w) => w.peer === at)?.ways, fault: row?.fault,
    };
  }

  // sumUp counts the ways by state, and lists those that are not well.
  sumUp() {
    const counts = new Map();
    const bad = [];
    const trips = new Int32Array(this.from.length * this.names.length);
    let known = 0;
    for (const from of this.from) {
      const says = this.rowOf.get(from)?.says;
      const row = this.row(from);
      for (let to = 0; to < this.names.length; to++) {
        const letter = row.state(to);
        if (letter === "-") continue;
        counts.set(letter, (counts.get(letter) ?? 0) + 1);
        const trip = says?.trips[this.number[to]];
        if (trip) trips[known++] = trip;
        if (isBad(stateOf(letter))) bad.push(this.cell(from, to));
      }
    }
    bad.sort((a, b) => a.state.rank - b.state.rank);
    return { counts, bad, median: trips.subarray(0, known).sort()[known >> 1] ?? 0 };
  }
}
