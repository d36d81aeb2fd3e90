// What the agents say, asked for as long as somebody looks at it.

// Feed asks for a document again and again, and tells it when it has changed.
export class Feed {
  constructor(address, { changed, failed, asked }) {
    Object.assign(this, { address, changed, failed, asked });
    this.tag = "";
    this.document = null;
    this.timer = 0;
    this.running = false;
    this.stopped = true;
  }

  // start asks from now on; what is known already is told at once.
  start() {
    if (!this.stopped) return;
    this.stopped = false;
    if (this.document) this.changed(this.document);
    this.ask();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  async ask() {
    clearTimeout(this.timer); // who asks now does not ask then as well
    if (this.running) return;
    this.running = true;
    let wait = 3000;
    try {
      wait = await this.once();
    } catch (error) {
      this.failed?.(error.message);
    }
    this.running = false;
    if (!this.stopped) this.timer = setTimeout(() => this.ask(), wait);
  }

  async once() {
    let response;
    try {
      response = await fetch(this.address, { headers: this.tag ? { "If-None-Match": this.tag } : {}, cache: "no-store" });
    } catch {
      throw new Error("the program that serves this page does not answer: it may have ended");
    }
    if (response.status !== 304 && !response.ok) throw new Error((await response.text()).trim() || response.statusText);
    const age = Number(response.headers.get("X-Age"));
    const next = Number(response.headers.get("X-Next"));
    if (response.status !== 304) {
      const found = await response.json();
      if (found.failure) {
        this.tag = "";
        throw new Error(found.failure);
      }
      this.tag = response.headers.get("ETag");
      this.document = found;
      if (!this.stopped) this.changed(found);
    }
    this.asked?.(Date.now() - age);
    return Math.max(500, next + 50);
  }
}

// ask is the address of what agents say about something.
export function ask(about, node = "", pod = "") {
  const query = new URLSearchParams({ about });
  if (node) query.set("node", node);
  if (pod) query.set("pod", pod);
  return `ask?${query}`;
}
