// Pixels from the desk: what is wanted is fetched in the order of urgency, what was fetched is kept
// within bounds. One store serves every viewer of the page, so that a study that is opened again is
// there at once.

const MIB = 1024 * 1024;
const ARRAYS = { int16: Int16Array, uint16: Uint16Array, float32: Float32Array, uint8: Uint8Array };

/** What went wrong, as a word of the catalogue: error_session, error_missing, error_server, ... */
export class Refused extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

export const frameKey = (image, frame) => `${image}/${frame}`;

/** Least recently used first out, by bytes. */
export class Kept {
  constructor(limit) {
    this.limit = limit;
    this.bytes = 0;
    this.held = new Map();
  }

  has(key) {
    return this.held.has(key);
  }

  get(key) {
    const value = this.held.get(key);
    if (value) {
      this.held.delete(key);
      this.held.set(key, value);
    }
    return value;
  }

  set(key, value) {
    const before = this.held.get(key);
    if (before) this.bytes -= before.byteLength;
    this.held.delete(key);
    this.held.set(key, value);
    this.bytes += value.byteLength;
    for (const [old, one] of this.held) {
      if (this.bytes <= this.limit || old === key) break;
      this.held.delete(old);
      this.bytes -= one.byteLength;
    }
  }
}

export class PixelStore {
  constructor({ limit = 512 * MIB, atOnce = 4, fetcher = (...given) => fetch(...given) } = {}) {
    this.kept = new Kept(limit);
    this.headers = new Map();
    this.failures = new Map();
    this.atOnce = atOnce;
    this.fetcher = fetcher;
    this.running = new Set();
    this.asked = new Map();
    this.wishes = new Map();
    this.listeners = new Set();
    this.access = { base: "", token: "" };
    this.requests = 0;
  }

  /** Where and as whom to ask; a new token gives what was refused for the old one another try. */
  setAccess(base, token) {
    const other = token !== this.access.token;
    this.access = { base, token };
    if (other) this.forgive("error_session");
  }

  header(image) {
    return this.headers.get(image);
  }

  pixels(image, frame) {
    return this.kept.get(frameKey(image, frame));
  }

  failure(image, frame) {
    return this.failures.get(frameKey(image, frame));
  }

  /** Tries again what failed, all of it or for one reason. */
  forgive(code = null) {
    for (const [key, why] of this.failures) if (!code || why === code) this.failures.delete(key);
    this.#next();
  }

  /** `listener(image, frame)` is called after each arrival or failure. Returns how to stop it. */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** What `who` wants now, most urgent first: [image, frame] each. Replaces the wish before. */
  want(who, list) {
    if (list.length) this.wishes.set(who, list);
    else this.wishes.delete(who);
    this.#next();
  }

  #next() {
    // One of each wish in turn, so that two viewports fill alongside each other.
    const lists = [...this.wishes.values()];
    const longest = Math.max(0, ...lists.map((list) => list.length));
    for (let depth = 0; depth < longest; depth++) {
      for (const list of lists) {
        if (depth >= list.length) continue;
        // What is looked at right now goes beyond the limit, rather than behind a prefetch.
        if (this.running.size >= this.atOnce + (depth === 0 ? 2 : 0)) return;
        const [image, frame] = list[depth];
        const key = frameKey(image, frame);
        const there = this.headers.has(image) && this.kept.has(key);
        if (there || this.running.has(key) || this.failures.has(key)) continue;
        this.running.add(key);
        this.#load(image, frame, key);
      }
    }
  }

  async #load(image, frame, key) {
    const token = this.access.token;
    try {
      const [header, bytes] = await Promise.all([
        this.#headerOf(image),
        this.kept.has(key) ? null : this.#ask(`images/${image}/frames/${frame}`, (a) => a.arrayBuffer()),
      ]);
      if (bytes) this.kept.set(key, arrayOf(header, bytes));
      this.headers.set(image, header);
    } catch (error) {
      const code = error instanceof Refused ? error.code : "error_network";
      if (token === this.access.token) this.failures.set(key, code);
    }
    this.running.delete(key);
    for (const listener of this.listeners) listener(image, frame);
    this.#next();
  }

  /** Asked for once, however many frames of the image are on their way. */
  #headerOf(image) {
    if (this.headers.has(image)) return this.headers.get(image);
    let asked = this.asked.get(image);
    if (!asked) {
      asked = this.#ask(`images/${image}`, (answer) => answer.json()).then(checked);
      this.asked.set(image, asked);
      const done = () => this.asked.delete(image);
      asked.then(done, done);
    }
    return asked;
  }

  async #ask(path, read) {
    this.requests++;
    const answer = await this.fetcher(this.access.base + path, {
      headers: { Authorization: `Bearer ${this.access.token}` },
      credentials: "same-origin",
    });
    if (answer.status === 401 || answer.status === 403) throw new Refused("error_session");
    if (answer.status === 404) throw new Refused("error_missing");
    if (!answer.ok) throw new Refused("error_server");
    return read(answer);
  }
}

/** A header that the viewer can rely on, under the names that it uses. */
export function checked(header) {
  const known = ARRAYS[header.dtype] && header.rows > 0 && header.columns > 0;
  if (!known) throw new Refused("error_unreadable");
  return {
    ...header,
    frames: header.frames || 1,
    samples: header.samples || 1,
    aspect: header.pixel_aspect > 0 ? header.pixel_aspect : 1,
    spacing: header.spacing_mm || null,
    windows: header.windows || [],
    unit: header.unit || "",
    padding: header.padding ?? null,
    detector: Boolean(header.at_detector),
    directions: header.directions || [],
  };
}

/** The values of a frame. The desk sends little-endian, as every browser's machine is. */
export function arrayOf(header, bytes) {
  const Kind = ARRAYS[header.dtype];
  const count = header.rows * header.columns * header.samples;
  if (bytes.byteLength !== count * Kind.BYTES_PER_ELEMENT) throw new Refused("error_unreadable");
  return new Kind(bytes);
}
