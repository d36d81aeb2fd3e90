// Which rows of a table match a filter, and in what order. What both need is made while
// nobody waits: with thirty thousand rows it takes longer than a key press should.

const padded = 12; // digits of a number in a text
const slice = 6; // milliseconds of work at a time
const some = 200; // rows before the clock is looked at

// orderOf is a text that sorts as people count: n10 comes after n9.
function orderOf(text) {
  return String(text).toLowerCase().replace(/\d+/g, (digits) => digits.padStart(padded, "0"));
}

export class Rows {
  constructor(columns) {
    this.columns = columns;
    this.filter = "";
    this.set([]);
  }

  set(rows) {
    this.all = rows;
    this.orders = new Map(); // of each column: what its rows sort by
    this.texts = []; // of the first rows, in which the filter is looked for
    this.looked = this.columns.filter((c) => c.found !== false);
    clearTimeout(this.later);
    this.later = setTimeout(() => this.prepare(), 50);
  }

  // prepare makes some of the texts and orders, and more of them the next time nobody waits.
  prepare() {
    const begin = performance.now();
    for (const make of [(end) => this.text(end), ...this.columns.map((c) => (end) => this.order(c, end))]) {
      for (let made = 0; made < this.all.length; ) {
        made = make(made + some);
        if (performance.now() - begin < slice) continue;
        this.later = setTimeout(() => this.prepare(), 10);
        return;
      }
    }
  }

  // text makes the texts of the rows before a number, and returns how many there are.
  text(end) {
    const { all, texts, looked } = this;
    for (let i = texts.length; i < Math.min(end, all.length); i++) {
      let text = "";
      for (const c of looked) text += c.text(all[i]) + "\n";
      texts.push(text.toLowerCase());
    }
    return texts.length;
  }

  // matching are the numbers of the rows with all words of the filter.
  matching() {
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length === 0) return this.all.map((_, i) => i);
    this.text(this.all.length);
    const found = [];
    for (let i = 0; i < this.texts.length; i++) {
      if (words.every((w) => this.texts[i].includes(w))) found.push(i);
    }
    return found;
  }

  // order makes what the rows before a number sort by in a column, numbers or texts, and
  // returns of how many it is known.
  order(column, end) {
    let order = this.orders.get(column.key);
    if (!order) this.orders.set(column.key, (order = []));
    const of = column.order ?? ((row) => orderOf(column.text(row)));
    for (let i = order.length; i < Math.min(end, this.all.length); i++) order.push(of(this.all[i]));
    return order.length;
  }

  // arrange returns the rows to show; sorted is a column's key, with - before it for the
  // other way around, or "" for the order in which they came.
  arrange(sorted) {
    const found = this.matching();
    const column = this.columns.find((c) => c.key === sorted.replace(/^-/, ""));
    if (column) {
      this.order(column, this.all.length);
      const order = this.orders.get(column.key);
      const sign = sorted.startsWith("-") ? -1 : 1;
      found.sort((a, b) => (order[a] < order[b] ? -sign : order[a] > order[b] ? sign : a - b));
    }
    return found.map((i) => this.all[i]);
  }
}
