// Events on their way to Python, one at a time: a trigger that follows another closely can replace it
// on the server, or cut short the run that was about to act on it. Each is sent again until Python
// says that it has taken it; Python drops what it has seen, so each is acted on once.

// Longer than a run of the page takes, which another message would cut short.
const PATIENCE_MS = [6000, 15000, 40000];

const NEXT_MS = 250;

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

  get empty() {
    return !this.waiting.length;
  }

  post(kind, value) {
    const nonce = newNonce();
    this.waiting.push({ kind, nonce, ...value });
    if (this.waiting.length === 1) this.#deliver();
    return nonce;
  }

  /** Python's list of nonces that it has taken. */
  taken(nonces) {
    const done = new Set(nonces);
    const first = this.waiting[0];
    this.waiting = this.waiting.filter((one) => !done.has(one.nonce));
    if (this.waiting[0] === first) return;
    clearTimeout(this.timer);
    this.tries = 0;
    if (!this.empty) this.timer = setTimeout(() => this.#deliver(), NEXT_MS);
  }

  close() {
    clearTimeout(this.timer);
  }

  #deliver() {
    if (this.empty) return;
    this.send(this.waiting.slice(0, 1));
    clearTimeout(this.timer);
    if (this.tries >= PATIENCE_MS.length) return;
    this.timer = setTimeout(() => this.#deliver(), PATIENCE_MS[this.tries++]);
  }
}
