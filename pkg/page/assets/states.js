// States of the way from one node to another. The letters are those of the server.

export const states = [
  ["x", "lost", "bad", "✕", "no probe is answered"],
  ["m", "route missing", "bad", "!", "the route is not in the kernel"],
  ["n", "no route", "bad", "⊘", "the configuration gives no route to the peer"],
  ["f", "full size lost", "warn", "◐", "small packets get through, full ones do not"],
  ["y", "lossy", "warn", "~", "some probes are lost"],
  ["?", "not known", "unknown", "?", "the node does not say"],
  ["w", "waiting", "idle", "…", "the peer has no podCIDR yet"],
  ["s", "silent", "idle", "s", "the peer is reached, and does not answer probes"],
  ["u", "joined", "joined", "·", "the route is there; nobody has probed it"],
  ["o", "ok", "ok", "✓", "probes are answered"],
  ["-", "itself", "self", "", "the node itself, or one that it does not list"],
].map(([letter, word, kind, sign, means], rank) => ({ letter, word, kind, sign, means, rank }));

const byLetter = new Map(states.map((s) => [s.letter, s]));

export const stateOf = (letter) => byLetter.get(letter) ?? byLetter.get("?");

export const modeOf = (letter) => ({ d: "direct", b: "bgp", v: "vxlan", m: "mixed" })[letter] ?? "";

// isBad reports whether somebody has to do something.
export const isBad = (s) => s.rank <= byLetter.get("y").rank;
