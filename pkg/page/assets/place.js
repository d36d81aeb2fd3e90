// Where the reader is, kept in the address so that a link can be shared:
// #nodes?sort=pods&filter=zone-b

export function read() {
  const [view, query] = location.hash.slice(1).split("?");
  return { view, query: new URLSearchParams(query ?? "") };
}

// get returns what the address says of a name, or "".
export function get(name) {
  return read().query.get(name) ?? "";
}

// put writes something into the address, and leaves no trail of it in the history.
export function put(changes) {
  const { view, query } = read();
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === null || value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(null, "", `#${view}${text ? "?" + text : ""}`);
}
