// The stream of sections: one a tab, closed while the tab is hidden, opened again after a failure.

const BACKOFF_MS = [500, 1000, 2000, 5000];

export class Stream {
  constructor({ onEvent, onRefused, onTrouble }) {
    this.onEvent = onEvent;
    this.onRefused = onRefused;
    this.onTrouble = onTrouble;
    this.token = "";
    this.failures = 0;
    this.abort = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
  }

  headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  open() {
    if (this.abort || document.hidden) return;
    this.abort = new AbortController();
    this.read(this.abort);
  }

  close() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
  }

  async read(abort) {
    let trouble = "the connection was closed";
    try {
      const options = { headers: this.headers(), signal: abort.signal, cache: "no-store" };
      const response = await fetch("/api/v1/stream", options);
      if (response.status === 401) {
        this.close();
        this.onRefused(Boolean(this.token));
        return;
      }
      if (response.ok) await this.follow(response.body.getReader());
      else trouble = (await response.json()).error;
    } catch (error) {
      trouble = error.name === "AbortError" ? "" : "the server does not answer";
    }
    if (abort !== this.abort) return;
    this.abort = null;
    this.onTrouble(trouble);
    const wait = BACKOFF_MS[Math.min(this.failures, BACKOFF_MS.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.open(), wait);
  }

  async follow(reader) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      let end = text.indexOf("\n\n");
      while (end >= 0) {
        this.take(text.slice(0, end));
        text = text.slice(end + 2);
        end = text.indexOf("\n\n");
      }
    }
  }

  take(event) {
    const line = event.indexOf("\n");
    this.failures = 0;
    this.onEvent(event.slice("event: ".length, line), JSON.parse(event.slice(line + 1 + "data: ".length)));
  }

  async get(path) {
    const response = await fetch(`/api/v1/${path}`, { headers: this.headers(), cache: "no-store" });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    return body;
  }
}
