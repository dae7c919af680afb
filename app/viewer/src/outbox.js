// Events on their way to Python. A trigger that follows another closely can replace it on the
// server, so each one is sent again until Python says that it has taken it; Python drops what it has
// seen, so each is acted on once.

// Longer than a run of the page takes, which another message would cut short.
const PATIENCE_MS = [6000, 15000, 40000];

export function newNonce() {
  // Not randomUUID, which plain http lacks.
  const words = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(words, (word) => word.toString(16).padStart(8, "0")).join("");
}

export class Outbox {
  constructor() {
    this.waiting = [];
    this.send = () => {};
    this.timer = 0;
    this.tries = 0;
  }

  post(kind, value) {
    const nonce = newNonce();
    this.waiting.push({ kind, nonce, ...value });
    this.tries = 0;
    this.#deliver();
    return nonce;
  }

  /** Python's list of nonces that it has taken. */
  taken(nonces) {
    const done = new Set(nonces);
    this.waiting = this.waiting.filter((one) => !done.has(one.nonce));
    if (!this.waiting.length) clearTimeout(this.timer);
  }

  close() {
    clearTimeout(this.timer);
  }

  #deliver() {
    if (!this.waiting.length) return;
    this.send(this.waiting.slice());
    clearTimeout(this.timer);
    if (this.tries >= PATIENCE_MS.length) return;
    this.timer = setTimeout(() => this.#deliver(), PATIENCE_MS[this.tries++]);
  }
}
