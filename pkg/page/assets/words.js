// What the page says of numbers and times.

export function count(n, one, many = one + "s") {
  return `${number(n)} ${n === 1 ? one : many}`;
}

const numbers = new Intl.NumberFormat("en");

export function number(n) {
  return n >= 1e9 ? "billions" : numbers.format(n);
}

// usedWords say how many addresses of a family pods have.
export const usedWords = (u) => `${number(u.used)}${u.total ? ` of ${number(u.total)}` : ""}`;

// ago is a duration until now, in one or two units.
export function ago(since, now = Date.now()) {
  const at = Date.parse(since);
  if (!at || at < 0) return "–";
  return duration((now - at) / 1000);
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s >= 86400) return `${Math.floor(s / 86400)}d ${Math.floor((s % 86400) / 3600)}h`;
  if (s >= 3600) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
  if (s >= 60) return `${Math.floor(s / 60)}m ${s % 60}s`;
  return `${s}s`;
}

// trip is a round trip of so many microseconds.
export function trip(us) {
  if (!us) return "–";
  if (us < 1000) return `${us} µs`;
  return `${(us / 1000).toFixed(us < 10000 ? 2 : 1)} ms`;
}

// rate is bits per second, as in the annotations that it comes from.
export function rate(bits) {
  if (!bits) return "–";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (bits >= size && bits % (size / 1000) === 0) return `${bits / size}${unit}`;
  }
  return String(bits);
}

// bytes is a number of them in a unit that is easy to read.
export function bytes(n) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (n >= size) return `${(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${n ?? 0} B`;
}

// fastShare is which part of the packets that could takes the fast path; "" where none could.
export function fastShare(path) {
  const all = (path?.hits ?? 0) + (path?.misses ?? 0);
  return all ? `${Math.floor((path.hits ?? 0) / all * 100)} %` : "";
}

// natural compares names so that node10 comes after node9.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
export const natural = (a, b) => collator.compare(a, b);

// kindOf is how a node's state is shown.
export function kindOf(node) {
  if (node.wrong) return node.answers && node.state === "ready" ? "warn" : "bad";
  if (node.unknown) return "unknown";
  return node.state === "ready" || node.state === "peer" ? "ok" : "idle";
}

// stateWords is a node's state, and that it has problems where it is ready all the same.
export function stateWords(node) {
  return kindOf(node) === "warn" ? `${node.state}, problems` : node.state;
}
