// One pane: a stack, where one is in it, how it is shown, and the painting of it.

import { element, write } from "./dom.js";
import { fitScale, placeOf, regionAt, toDevice, toSource } from "./geometry.js";
import { drawMarks } from "./marks.js";
import { covered, resampled } from "./resample.js";
import { around } from "./stack.js";
import { BLACK, chosenWindow, grey, lookupTable, opaque } from "./window.js";

const LATE_MS = 200;

export class Viewport {
  constructor(viewer, index) {
    this.viewer = viewer;
    this.index = index;
    this.stack = null;
    this.state = null;
    this.painted = null; // { image, frame, header, pixels } that the canvas shows
    this.size = { width: 0, height: 0 }; // of the pane, in device pixels
    this.pixelRatio = 1;
    this.stale = { pixels: true, levels: true, marks: true, words: true };
    this.draft = null;
    this.pending = [];
    this.hovered = null;
    this.flash = null;
    this.direction = 1;
    this.lateSince = 0;
    this.playing = false;
    this.#build();
  }

  #build() {
    this.canvas = element("canvas", { class: "image", "aria-hidden": "true" });
    this.over = element("canvas", { class: "marks", "aria-hidden": "true" });
    this.title = element("div", { class: "title" });
    this.number = element("div", { class: "corner number" });
    this.levels = element("div", { class: "corner levels" });
    this.value = element("div", { class: "corner value" });
    const edges = ["right", "bottom", "left", "top"];
    this.edges = edges.map((edge) => element("div", { class: `corner edge ${edge}`, "aria-hidden": "true" }));
    this.thumb = element("div", { class: "thumb" });
    this.ticks = element("div", { class: "ticks" });
    this.track = element("div", { class: "track", "aria-hidden": "true" }, this.ticks, this.thumb);
    this.busy = element("div", { class: "busy", hidden: true });
    this.problem = element("div", { class: "problem", role: "alert", hidden: true });
    this.element = element(
      "div",
      { class: "viewport", tabindex: "0", role: "application", "data-viewport": this.index },
      ...[this.canvas, this.over, this.title, this.number, this.levels, this.value, ...this.edges],
      ...[this.track, this.busy, this.problem],
    );
    // CPU memory on purpose: it is written by the CPU, whole, at every change of the window.
    this.context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  }

  /** Puts a stack in, where it was left. */
  setStack(stack) {
    if (stack === this.stack) return;
    const image = this.target && stack && stack.key === this.stack?.key ? this.target.image.id : null;
    const frame = this.target?.frame || 0;
    this.stack = stack;
    this.state = stack ? this.viewer.stateOf(this.index, stack.key) : null;
    if (image) {
      const slot = stack.slotOf(image, frame);
      if (slot >= 0) this.state.slot = slot;
    } else {
      this.painted = null;
      this.draft = null;
      this.playing = false;
      this.hovered = null;
    }
    this.touch("pixels");
    this.wish();
  }

  get target() {
    return this.stack ? this.stack.at(this.state.slot) : null;
  }

  get length() {
    return this.stack ? this.stack.length : 0;
  }

  /** What is on the canvas, as `geometry.js` takes it; null before there is any. */
  get image() {
    return this.painted && this.painted.header;
  }

  get place() {
    return placeOf(this.state.view, this.image, this.size.width, this.size.height);
  }

  /** Goes to a place of the stack; returns whether that is another one. */
  goTo(slot) {
    const held = Math.min(Math.max(slot, 0), this.length - 1);
    if (!this.stack || held === this.state.slot || held < 0) return false;
    this.direction = held > this.state.slot ? 1 : -1;
    this.state.slot = held;
    if (this.draft) this.viewer.cancelDraft();
    this.hovered = null;
    this.touch("words");
    this.wish();
    return true;
  }

  /** Asks for what is shown and what may come next. */
  wish() {
    const { store } = this.viewer;
    if (!this.stack || !this.target) {
      store.want(this, []);
      return;
    }
    const { length } = this;
    // Before the first image has come, how large they are is a guess.
    this.guessed = !this.painted;
    const bytes = this.guessed ? 8e6 : this.painted.pixels.byteLength;
    const share = (0.6 * store.kept.limit) / Math.max(this.viewer.viewports.length, 1);
    const most = Math.max(2, Math.floor(share / bytes) - 1);
    const slots = [this.state.slot, ...around(this.state.slot, length, this.direction, most)];
    store.want(this, slots.map((slot) => this.stack.at(slot)).map((one) => [one.image.id, one.frame]));
    this.viewer.schedule();
  }

  touch(what) {
    this.stale[what] = true;
    this.viewer.schedule();
  }

  /** The window in force for an image. */
  windowOf(header) {
    return chosenWindow(header, this.state.window);
  }

  get inverted() {
    return Boolean(this.image.invert) !== Boolean(this.state.invert);
  }

  /** Brings everything up to date; called once per animation frame. */
  draw(now) {
    this.#fitCanvas();
    this.#arrive(now);
    if (this.size.width && this.size.height && this.image) {
      if (this.stale.pixels) this.#resample();
      if (this.stale.levels) this.#paint();
      if (this.stale.marks || this.flash) this.#marks(now);
    } else if (this.stale.pixels) this.#clear();
    if (this.stale.words) this.#words();
    this.stale = { pixels: false, levels: false, marks: false, words: false };
  }

  #fitCanvas() {
    const scale = window.devicePixelRatio || 1;
    const width = Math.round(this.element.clientWidth * scale);
    const height = Math.round(this.element.clientHeight * scale);
    if (this.size.width === width && this.size.height === height) return;
    this.size = { width, height };
    this.pixelRatio = scale;
    Object.assign(this.over, { width, height });
    this.stale.pixels = true;
  }

  /** Takes the wanted image onto the canvas once it is there; until then the one before stays. */
  #arrive(now) {
    const target = this.target;
    if (!target) {
      this.painted = null;
      this.busy.hidden = true;
      this.#fail(null);
      return;
    }
    const { store } = this.viewer;
    const id = target.image.id;
    const there = this.painted && this.painted.image.id === id && this.painted.frame === target.frame;
    const pixels = there ? this.painted.pixels : this.#take(target);
    if (!pixels && this.painted) this.#takeOnTheWay();
    const failure = pixels ? null : store.failure(id, target.frame);
    if (failure && this.painted) {
      // An image that is not the one named must not stand there.
      this.painted = null;
      this.#clear();
    }
    this.#fail(failure);
    if (pixels || failure) {
      this.lateSince = 0;
      this.busy.hidden = true;
      return;
    }
    this.lateSince = this.lateSince || now;
    if (now - this.lateSince < LATE_MS) this.viewer.schedule();
    else {
      const values = { number: this.state.slot + 1, count: this.length };
      write(this.busy, this.viewer.say("loading", values));
      this.busy.hidden = false;
    }
  }

  /** Puts a place of the stack on the canvas if its pixels are there; returns them. */
  #take({ image, frame }) {
    const { store } = this.viewer;
    const header = store.header(image.id);
    const pixels = header && store.pixels(image.id, frame);
    if (!pixels) return null;
    this.painted = { image, frame, header, pixels };
    Object.assign(this.stale, { pixels: true, marks: true, words: true });
    if (this.guessed) this.wish();
    return pixels;
  }

  /** In a fast scroll, shows the last image before the wanted one that has arrived. */
  #takeOnTheWay() {
    const from = this.stack.slotOf(this.painted.image.id, this.painted.frame);
    if (from < 0) return;
    const step = Math.sign(from - this.state.slot);
    for (let slot = this.state.slot + step; slot !== from; slot += step) {
      if (this.#take(this.stack.at(slot))) return;
    }
  }

  #fail(code) {
    if (this.failed === code) return;
    this.failed = code;
    this.problem.replaceChildren();
    this.problem.hidden = !code;
    if (!code) return;
    const { viewer } = this;
    const retry = element("button", {
      type: "button",
      text: viewer.say("retry"),
      onclick: () => viewer.retry(),
    });
    this.problem.append(element("p", { text: viewer.say(code) }), retry);
    viewer.reportError(code, this.target.image.id);
  }

  #clear() {
    this.canvas.hidden = true;
    this.over.hidden = true;
  }

  #resample() {
    const place = this.place;
    this.area = covered(place, this.image, this.size.width, this.size.height);
    this.values = resampled(this.painted.pixels, this.image, place, this.area);
    // No larger than the image is: the browser copies all of a canvas that has changed.
    const { x, y, width, height } = this.area;
    const { canvas } = this;
    canvas.hidden = !width || !height;
    if (canvas.hidden) this.data = null;
    else if (!this.data || canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
      this.data = this.context.createImageData(width, height);
    }
    const css = { left: x, top: y, width, height };
    for (const name of Object.keys(css)) canvas.style[name] = `${css[name] / this.pixelRatio}px`;
    Object.assign(this.stale, { levels: true, marks: true, words: true });
  }

  #paint() {
    if (!this.data) return;
    const out = new Uint32Array(this.data.data.buffer);
    const { values, image } = this;
    if (image.samples === 3) paintColour(values, out, this.inverted);
    else if (values instanceof Float32Array) {
      const win = this.windowOf(image);
      const invert = this.inverted;
      const padding = image.padding === null ? NaN : Math.fround(image.padding);
      for (let i = 0; i < out.length; i++) {
        out[i] = values[i] === padding ? BLACK : opaque(grey(values[i], win, invert));
      }
    } else {
      const signed = values instanceof Int16Array;
      const win = this.windowOf(image);
      this.table = lookupTable(win, this.inverted, signed, image.padding, this.table);
      const patterns = signed ? new Uint16Array(values.buffer) : values;
      const { table } = this;
      for (let i = 0; i < out.length; i++) out[i] = table[patterns[i]];
    }
    this.context.putImageData(this.data, 0, 0);
    this.stale.words = true;
    this.viewer.wasPainted(this);
  }

  #marks(now) {
    const { viewer } = this;
    if (this.flash) {
      const part = (now - this.flash.since) / 1400;
      if (part >= 1) this.flash = null;
      else {
        this.flash.strength = viewer.calm ? 1 - Math.floor(part) : Math.abs(Math.cos(part * Math.PI * 3));
        viewer.schedule();
      }
    }
    const visible = viewer.memory.overlays;
    const regions = visible ? this.regions : [];
    const rulers = visible ? this.rulers : [];
    const pending = this.pending.filter((one) => this.#isHere(one));
    // An empty canvas costs the browser as much as a full one.
    this.over.hidden = !(regions.length || rulers.length || pending.length || this.draft);
    if (this.over.hidden) return;
    drawMarks(this.over, this.place, this.image, this.pixelRatio, {
      regions,
      rulers,
      pending,
      draft: this.draft,
      hovered: this.hovered,
      flash: this.flash,
      kindText: (kind) => viewer.say(`kind_${kind}`),
      lengthText: ({ length, mm }) => viewer.lengthText(length, mm, this.image.detector),
    });
  }

  #isHere(one) {
    return one.image === this.painted.image.id && one.frame === this.painted.frame;
  }

  get regions() {
    return this.painted ? this.viewer.regionsOf(this.painted.image.id, this.painted.frame) : [];
  }

  get rulers() {
    return this.painted ? this.viewer.rulersOf(this.painted.image.id, this.painted.frame) : [];
  }

  #words() {
    const { viewer, state, length } = this;
    const say = (key, values) => viewer.say(key, values);
    const several = length > 1;
    this.track.hidden = !several;
    if (several) {
      const share = Math.max(1 / length, 0.06);
      this.thumb.style.height = `${share * 100}%`;
      this.thumb.style.top = `${(state.slot / (length - 1)) * (1 - share) * 100}%`;
      this.#tickMarks();
    }
    if (!this.stack || !this.painted) {
      for (const corner of [this.number, this.levels, this.value, ...this.edges]) write(corner, "");
      const label = this.stack ? this.stack.label : say("empty");
      this.element.setAttribute("aria-label", label);
      return;
    }
    const { image, header, frame } = this.painted;
    // The number of what is on the canvas, not of what is on its way.
    const slot = this.stack.slotOf(image.id, frame);
    const parts = [several ? `${slot + 1} / ${length}` : "", image.label || ""];
    if (header.frames > 1) parts.push(say("frame", { number: frame + 1, count: header.frames }));
    const where = parts.filter(Boolean).join("  ·  ");
    write(this.number, where);
    const zoom = say("zoom_percent", { percent: Math.round(this.place.sx * 100) });
    if (header.samples === 3) write(this.levels, zoom);
    else {
      const win = this.windowOf(header);
      const unit = header.unit ? ` ${header.unit}` : "";
      const text = say("levels", { center: short(win.center), width: short(win.width) });
      write(this.levels, `${text}${unit}  ·  ${zoom}`);
    }
    const earlier = this.stack.prior ? `${say("prior")}: ` : "";
    this.element.setAttribute("aria-label", `${earlier}${this.stack.label}, ${where}`);
    const [across = "", down = ""] = header.directions;
    const letters = [across, down, opposite(across), opposite(down)];
    this.edges.forEach((edge, index) => write(edge, letters[index]));
    this.#valueUnder();
  }

  /** Where in the stack there are regions. */
  #tickMarks() {
    const slots = this.viewer.slotsWithRegions(this.stack);
    const wanted = slots.join();
    if (this.ticked === wanted) return;
    this.ticked = wanted;
    const tick = (slot) => {
      const made = element("div", { class: "tick" });
      made.style.top = `${((slot + 0.5) / this.length) * 100}%`;
      return made;
    };
    this.ticks.replaceChildren(...slots.map(tick));
  }

  /** Notes where the pointer is (device pixels), null when it has gone. */
  point(at) {
    this.pointer = at;
    const region = at && !this.draft ? this.regionUnder(at) : null;
    const hovered = region ? region.id : null;
    if (hovered !== this.hovered) {
      this.hovered = hovered;
      this.touch("marks");
    }
    this.#valueUnder();
  }

  #valueUnder() {
    if (!this.pointer || !this.image) {
      write(this.value, "");
      return;
    }
    const [x, y] = toSource(this.place, ...this.pointer).map(Math.floor);
    const { header, pixels } = this.painted;
    if (x < 0 || y < 0 || x >= header.columns || y >= header.rows) {
      write(this.value, "");
      return;
    }
    const at = (y * header.columns + x) * header.samples;
    const value = pixels[at] === header.padding ? "–"
      : header.samples === 3
        ? `R ${pixels[at]} G ${pixels[at + 1]} B ${pixels[at + 2]}`
        : `${short(pixels[at])}${header.unit ? ` ${header.unit}` : ""}`;
    write(this.value, `${x}, ${y}:  ${value}`);
  }

  regionUnder([dx, dy]) {
    if (!this.image || !this.viewer.memory.overlays) return null;
    const { place } = this;
    const slack = 5 * this.pixelRatio;
    const [x, y] = toSource(place, dx, dy);
    return regionAt(this.regions, x, y, [slack / place.sx, slack / place.sy]);
  }

  /** Moves the view only if the region lies outside of it, or is too small to be seen. */
  bring(region) {
    if (!this.image) return;
    const { width, height } = this.size;
    const [left, top] = toDevice(this.place, region.x, region.y);
    const [right, bottom] = toDevice(this.place, region.x + region.width, region.y + region.height);
    if (left >= 0 && top >= 0 && right <= width && bottom <= height) return;
    const cx = (region.x + region.width / 2) / this.image.columns;
    const cy = (region.y + region.height / 2) / this.image.rows;
    const fit = fitScale(this.image, width, height);
    const room = fitScale({ columns: region.width, rows: region.height, aspect: this.image.aspect }, width, height);
    const scale = Math.max(Math.min(this.place.sx, room * 0.8), Math.min(fit, room * 0.8));
    this.state.view = { fit: false, scale, cx, cy };
    this.touch("pixels");
  }
}

const OPPOSITES = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" };

/** The other way: of "L" (the patient's left) "R". */
const opposite = (letters) => Array.from(letters, (letter) => OPPOSITES[letter] || "").join("");

/** Enough digits, no more. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

function paintColour(values, out, invert) {
  const flip = invert ? 255 : 0;
  for (let i = 0, at = 0; i < out.length; i++, at += 3) {
    const red = values[at] ^ flip;
    const green = values[at + 1] ^ flip;
    const blue = values[at + 2] ^ flip;
    out[i] = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
  }
}
