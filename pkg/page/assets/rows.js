// Which rows of a table match a filter, and in what order.

const padded = 12; // digits of a number in a text

// orderOf is a text that sorts as people count: n10 comes after n9.
export function orderOf(text) {
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
    this.texts = null; // of each row, in which the filter is looked for
    this.found = null;
  }

  // matching are the numbers of the rows with all words of the filter.
  matching() {
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length === 0) return this.all.map((_, i) => i);
    this.texts ??= this.all.map((row) => this.columns.map((c) => c.text(row)).join("\n").toLowerCase());
    const found = [];
    for (let i = 0; i < this.texts.length; i++) {
      if (words.every((w) => this.texts[i].includes(w))) found.push(i);
    }
    return found;
  }

  // order is what the rows sort by in a column: numbers, or texts.
  order(column) {
    let order = this.orders.get(column.key);
    if (!order) {
      order = this.all.map(column.order ?? ((row) => orderOf(column.text(row))));
      this.orders.set(column.key, order);
    }
    return order;
  }

  // arrange returns the rows to show; sorted is a column's key, with - before it for the
  // other way around, or "" for the order in which they came.
  arrange(sorted) {
    const found = this.matching();
    const column = this.columns.find((c) => c.key === sorted.replace(/^-/, ""));
    if (column) {
      const order = this.order(column);
      const sign = sorted.startsWith("-") ? -1 : 1;
      found.sort((a, b) => (order[a] < order[b] ? -sign : order[a] > order[b] ? sign : a - b));
    }
    return found.map((i) => this.all[i]);
  }
}
