// The image viewer: panes in a grid, one bar above them. Streamlit calls the function at the end on
// every run of the page; what the reader has set (window, zoom, image) stays as it is.

import { choice, element, filled, write } from "./dom.js";
import { toDevice, toSource, panned, placeOf, zoomed } from "./geometry.js";
import { listen, shapeOf } from "./gestures.js";
import { pressed } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Stack } from "./stack.js";
import { PixelStore, frameKey } from "./store.js";
import { Help, LAYOUTS, Legend, Toolbar } from "./toolbar.js";
import { Viewport } from "./viewport.js";
import { dragged, presetsOf, usualWindow } from "./window.js";

const DRAWING = ["box", "polygon"];
const SETTLE_MS = 700;
const PENDING_MS = 8000;

const store = new PixelStore();
/** What a reader has set, by the viewer's key: it outlives a viewer that the page builds anew. */
const memories = new Map();

const newMemory = () => ({
  states: new Map(),
  rulers: new Map(),
  displayed: new Set(),
  frames: new Map(),
  overlays: true,
  fps: null,
  focus: null,
});

export class Viewer {
  constructor(parent, data) {
    this.began = performance.now();
    this.store = store;
    this.parent = parent;
    this.data = data;
    if (!memories.has(data.key)) memories.set(data.key, newMemory());
    this.memory = memories.get(data.key);
    this.outbox = new Outbox();
    this.viewports = [];
    this.stacks = new Map();
    this.regions = new Map();
    this.reported = new Set();
    this.paints = [];
    this.stop = new AbortController();
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#build();
    this.#takeTool("window");
  }

  #build() {
    this.grid = element("div", { class: "grid" });
    this.status = element("div", { class: "spoken", role: "status", "aria-live": "polite" });
    this.top = element("div");
    this.bottom = element("div", { class: "bottom" });
    this.root = element(
      "div",
      { class: "medvlm-viewer", role: "region", "data-ready": "false" },
      ...[this.top, this.grid, this.bottom, this.status],
    );
    const { signal } = this.stop;
    this.root.addEventListener("keydown", (event) => {
      if (!pressed(this, event)) return;
      // The page has shortcuts of its own.
      event.preventDefault();
      event.stopPropagation();
    });
    const released = (event) => {
      if (event.type === "blur" || event.key === " ") this.spaceHeld = false;
    };
    this.root.addEventListener("keyup", released);
    window.addEventListener("blur", released, { signal });
    document.addEventListener("visibilitychange", () => this.repaint(), { signal });
    document.addEventListener("fullscreenchange", () => this.schedule(), { signal });
    this.resizing = new ResizeObserver(() => this.repaint());
    this.resizing.observe(this.root);
    this.unlisten = store.listen(() => this.schedule());
    this.root.medvlmViewer = this;
    this.parent.append(this.root);
  }

  /** Takes what a run of the page says; only what differs from the run before has an effect. */
  update(data, setStateValue, setTriggerValue) {
    const before = this.updated ? this.data : {};
    const differs = (name) => JSON.stringify(before[name]) !== JSON.stringify(data[name]);
    const [words, stacks, shown] = ["words", "stacks", "shown"].map(differs);
    const [layout, tool, regions] = ["layout", "tool", "regions"].map(differs);
    this.data = data;
    this.setState = setStateValue;
    this.outbox.send = (waiting) => setTriggerValue("events", waiting);
    this.outbox.taken(data.taken || []);
    store.setAccess(data.base, data.token);
    this.root.style.setProperty("--height", data.height ? `${data.height}px` : "");
    if (words) this.#rebuild();
    if (stacks) this.stacks = new Map(data.stacks.map((one) => [one.key, new Stack(one)]));
    if (layout) this.layout = data.layout in LAYOUTS ? data.layout : "1";
    if (!this.updated || layout) this.#layOut();
    if (stacks || shown || layout || words) this.#fill(shown);
    if (differs("linked")) this.linked = Boolean(data.linked);
    // Without a word from the page the reader's choice stands, but for what the page had asked for.
    if (tool || differs("tool_nonce")) {
      if (data.tool) this.#takeTool(data.tool);
      else if (DRAWING.includes(this.tool)) this.#takeTool("window");
    }
    if (!data.enabled_drawing && DRAWING.includes(this.tool)) this.#takeTool("window");
    if (regions) this.#takeRegions(data.regions);
    this.updated = true;
    this.#reportDisplayed();
    this.#focus(data.focus);
    this.#stayBright();
    for (const viewport of this.viewports) {
      viewport.touch("marks");
      viewport.touch("words");
    }
    this.schedule();
  }

  /** Streamlit fades what a long run has not reached yet; images are to be read meanwhile. */
  #stayBright() {
    const host = this.parent.host || this.parent;
    const container = host.closest?.('[data-testid="stElementContainer"]');
    container?.style.setProperty("opacity", "1", "important");
  }

  say(key, values) {
    return filled(this.data.words[key] || key, values);
  }

  announce(text) {
    write(this.status, text);
  }

  #rebuild() {
    this.root.setAttribute("aria-label", this.say("viewer"));
    this.toolbar = new Toolbar(this);
    this.legend = new Legend(this);
    this.help = new Help(this);
    const hint = element("span", { class: "hint", text: this.say("hint") });
    this.top.replaceChildren(this.toolbar.element);
    this.bottom.replaceChildren(this.legend.element, hint, this.help.element);
  }

  #takeRegions(regions) {
    this.regions = new Map();
    for (const region of regions) {
      const key = frameKey(region.image, region.frame || 0);
      if (!this.regions.has(key)) this.regions.set(key, []);
      this.regions.get(key).push(region);
    }
    // What was drawn is among them now, or was not wanted.
    for (const viewport of this.viewports) viewport.pending = [];
  }

  regionsOf(image, frame) {
    return this.regions.get(frameKey(image, frame)) || [];
  }

  rulersOf(image, frame) {
    return this.memory.rulers.get(frameKey(image, frame)) || [];
  }

  slotsWithRegions(stack) {
    const slots = this.data.regions.map((one) => stack.slotOf(one.image, one.frame || 0));
    return [...new Set(slots)].filter((slot) => slot >= 0).sort((a, b) => a - b);
  }

  stateOf(index, stack) {
    const { states } = this.memory;
    const key = `${index}|${stack}`;
    if (!states.has(key)) {
      states.set(key, { slot: 0, view: { fit: true, scale: 1, cx: 0.5, cy: 0.5 }, window: null, invert: false });
    }
    return states.get(key);
  }

  // ---- layout

  #layOut() {
    const [rows, columns] = LAYOUTS[this.layout];
    this.grid.style.gridTemplate = `repeat(${rows}, minmax(0, 1fr)) / repeat(${columns}, minmax(0, 1fr))`;
    while (this.viewports.length > rows * columns) {
      const gone = this.viewports.pop();
      store.want(gone, []);
      gone.stop.abort();
      gone.element.remove();
    }
    while (this.viewports.length < rows * columns) {
      const viewport = new Viewport(this, this.viewports.length);
      viewport.stop = new AbortController();
      listen(this, viewport, viewport.stop.signal);
      viewport.element.addEventListener("focus", () => this.activate(viewport));
      this.viewports.push(viewport);
      this.grid.append(viewport.element);
    }
    if (!this.viewports.includes(this.active)) this.active = this.viewports[0];
    this.#markActive();
  }

  setLayout(layout) {
    this.layout = layout;
    this.#layOut();
    this.#fill(false);
    this.repaint();
  }

  /** Puts stacks into the panes: as the page says, or as they were, or the next that is free. */
  #fill(asked) {
    const keys = [...this.stacks.keys()];
    const used = new Set();
    for (const viewport of this.viewports) {
      const said = this.data.shown[viewport.index];
      const kept = viewport.stack?.key;
      const wishes = asked ? [said, kept] : [kept, said];
      const free = keys.find((key) => !used.has(key) && !this.data.shown.includes(key));
      const key = [...wishes, free].find((one) => this.stacks.has(one));
      if (key) used.add(key);
      viewport.setStack(key ? this.stacks.get(key) : null);
      this.#title(viewport);
    }
  }

  #title(viewport) {
    const { stack } = viewport;
    const named = (one) => (one.prior ? `${this.say("prior")}: ${one.label}` : one.label);
    viewport.element.classList.toggle("prior", Boolean(stack?.prior));
    if (this.stacks.size < 2) {
      viewport.title.replaceChildren(element("span", { text: stack ? named(stack) : this.say("empty") }));
      return;
    }
    const put = (key) => {
      viewport.setStack(this.stacks.get(key));
      viewport.element.classList.toggle("prior", viewport.stack.prior);
      this.activate(viewport);
      this.repaint();
    };
    const select = choice(this.say("stack"), put, () => viewport.element);
    for (const one of this.stacks.values()) {
      select.append(element("option", { value: one.key, text: named(one) }));
    }
    select.value = stack ? stack.key : "";
    viewport.title.replaceChildren(select);
  }

  activate(viewport) {
    if (this.active === viewport) return;
    this.active = viewport;
    this.#markActive();
    this.schedule();
  }

  #markActive() {
    const several = this.viewports.length > 1;
    for (const one of this.viewports) {
      one.element.classList.toggle("active", several && one === this.active);
    }
  }

  // ---- painting

  schedule() {
    if (this.scheduled || this.closed) return;
    this.scheduled = requestAnimationFrame((now) => {
      this.scheduled = 0;
      this.#cine(now);
      for (const viewport of this.viewports) {
        viewport.draw(now);
        this.#arrived(viewport, now);
      }
      if (this.toolbar && this.active) {
        this.toolbar.update();
        this.legend.update();
      }
      this.#tell();
    });
  }

  repaint() {
    for (const viewport of this.viewports) viewport.touch("pixels");
  }

  /** Called by a pane when its canvas shows its image at the window in force. */
  wasPainted(viewport) {
    const now = performance.now();
    this.paints.push(now);
    while (now - this.paints[0] > 1000) this.paints.shift();
    if (this.root.dataset.ready !== "true") {
      this.root.dataset.ready = "true";
      this.root.dataset.firstPaintMs = String(Math.round(now - this.began));
    }
    // A page in a hidden tab shows nothing to anyone.
    if (document.visibilityState !== "visible") return;
    const { image, frame, header } = viewport.painted;
    const { displayed, frames } = this.memory;
    if (displayed.has(image.id)) return;
    if (!frames.has(image.id)) frames.set(image.id, new Set());
    const seen = frames.get(image.id).add(frame);
    // A cine has been shown when each of its frames was.
    if (seen.size < header.frames) return;
    displayed.add(image.id);
    frames.delete(image.id);
    this.#reportDisplayed();
  }

  #reportDisplayed() {
    const known = new Set(this.data.stacks.flatMap((stack) => stack.images.map((image) => image.id)));
    const ids = [...this.memory.displayed].filter((id) => known.has(id));
    if (!ids.length || ids.join() === this.told) return;
    // Scrolling through a stack is told of once it rests.
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      // Nor is a run cut short that has an event to act on.
      if (!this.outbox.empty) {
        this.#reportDisplayed();
        return;
      }
      this.told = ids.join();
      this.setState("displayed", ids);
    }, SETTLE_MS);
  }

  /** What tests and tools read. */
  #tell() {
    const viewport = this.active;
    if (!viewport?.image) return;
    const { dataset } = this.root;
    const win = viewport.windowOf(viewport.image);
    dataset.center = String(win.center);
    dataset.width = String(win.width);
    dataset.zoom = String(viewport.place.sx);
    dataset.slot = String(viewport.state.slot);
    if (this.paints.length > 1) {
      const span = this.paints.at(-1) - this.paints[0];
      dataset.fps = String(Math.round(((this.paints.length - 1) * 10000) / span) / 10);
    }
  }

  /** Tells Python of a failure, once for each image and reason. */
  reportError(code, image) {
    const known = `${code} ${image}`;
    if (this.reported.has(known)) return;
    this.reported.add(known);
    this.outbox.post("error", { code });
  }

  retry() {
    this.reported.clear();
    store.forgive();
  }

  /** Client coordinates of a source point of an image that is shown, null if none shows it. */
  clientOf(image, x, y) {
    const viewport = this.viewports.find((one) => one.painted?.image.id === image);
    if (!viewport) return null;
    const pane = viewport.element;
    const box = pane.getBoundingClientRect();
    const [dx, dy] = toDevice(viewport.place, x, y).map((part) => part / viewport.pixelRatio);
    return { x: box.left + pane.clientLeft + dx, y: box.top + pane.clientTop + dy };
  }

  sourceIn(viewport, dx, dy) {
    return toSource(viewport.place, dx, dy);
  }

  /** `detector`: the spacing is the detector's, and the patient is a little smaller than that. */
  lengthText(length, mm, detector) {
    const value = mm && length < 100 ? length.toFixed(1) : length.toFixed(0);
    return this.say(!mm ? "length_px" : detector ? "length_detector" : "length_mm", { length: value });
  }

  // ---- moving through stacks

  scrollBy(viewport, steps) {
    if (viewport.stack) this.scrollTo(viewport, viewport.state.slot + steps);
  }

  scrollTo(viewport, slot) {
    if (!viewport.goTo(slot) || !this.linked) return;
    for (const other of this.#linkedTo(viewport)) {
      other.goTo(viewport.stack.alike(viewport.state.slot, other.stack));
    }
  }

  #linkedTo(viewport) {
    const alike = (other) =>
      other !== viewport &&
      other.stack &&
      other.stack.key !== viewport.stack.key &&
      other.stack.modality === viewport.stack.modality;
    return this.viewports.filter(alike);
  }

  link() {
    this.linked = !this.linked;
    this.announce(`${this.say("linked")}: ${this.say(this.linked ? "on" : "off")}`);
    this.schedule();
  }

  playOrPause() {
    const viewport = this.active;
    if (viewport.length < 2) return;
    viewport.playing = !viewport.playing;
    this.announce(this.say(viewport.playing ? "playing" : "paused"));
    this.schedule();
  }

  faster(factor) {
    this.memory.fps = Math.min(Math.max(this.fps * factor, 1), 60);
    this.schedule();
  }

  /** Images per second of a cine: as chosen, else as the file has it. */
  get fps() {
    const lasts = this.active?.image?.frame_ms;
    return this.memory.fps || Math.min(lasts ? 1000 / lasts : 12, 60);
  }

  #cine(now) {
    for (const viewport of this.viewports) {
      if (!viewport.playing) continue;
      this.schedule();
      const next = (viewport.state.slot + 1) % viewport.length;
      const there = viewport.stack.at(next);
      // Waits for pixels, rather than to leave frames out.
      const loaded = store.pixels(there.image.id, there.frame) || store.failure(there.image.id, there.frame);
      if (!loaded) viewport.wish();
      else if (now - (viewport.stepped || 0) >= 1000 / this.fps - 4) {
        viewport.stepped = now;
        this.scrollTo(viewport, next);
      }
    }
  }

  // ---- how an image is shown

  presetsOf(viewport) {
    const header = viewport.image;
    if (!header || header.samples === 3) return [];
    return presetsOf(header, (key, values) => this.say(key, values));
  }

  preset(number) {
    const offer = this.presetsOf(this.active)[number];
    if (!offer) return;
    this.setWindow(this.active, offer.win ? { win: offer.win } : { index: offer.index });
    this.announce(`${this.say("preset")}: ${offer.label}`);
  }

  setWindow(viewport, chosen) {
    viewport.state.window = chosen;
    viewport.touch("levels");
    if (!this.linked || !viewport.image || viewport.image.samples === 3) return;
    for (const other of this.#linkedTo(viewport)) {
      if (!other.image || other.image.samples === 3) continue;
      other.state.window = chosen && { win: alikeWindow(viewport, other) };
      other.touch("levels");
    }
  }

  nudgeWindow(viewport, dx, dy) {
    if (!viewport.image || viewport.image.samples === 3) return;
    const whole = !(viewport.painted.pixels instanceof Float32Array);
    const win = dragged(viewport.windowOf(viewport.image), dx, dy, whole);
    this.setWindow(viewport, { win });
    const levels = { center: Math.round(win.center), width: Math.round(win.width) };
    this.announce(this.say("levels", levels));
  }

  dragEnded() {
    this.schedule();
  }

  setView(viewport, view) {
    viewport.state.view = view;
    viewport.touch("pixels");
  }

  zoom(viewport, factor, at = null) {
    if (!viewport.image) return;
    const { width, height } = viewport.size;
    const [x, y] = at || [width / 2, height / 2];
    this.setView(viewport, zoomed(viewport.state.view, viewport.image, width, height, factor, x, y));
  }

  nudge(viewport, dx, dy) {
    if (!viewport.image) return;
    const { width, height } = viewport.size;
    const ratio = viewport.pixelRatio;
    this.setView(viewport, panned(viewport.state.view, viewport.image, width, height, dx * ratio, dy * ratio));
  }

  fit() {
    const { state } = this.active;
    if (state) this.setView(this.active, { ...state.view, fit: true });
  }

  actual() {
    const { state } = this.active;
    if (!state) return;
    const middle = state.view.fit ? { cx: 0.5, cy: 0.5 } : {};
    this.setView(this.active, { ...state.view, ...middle, fit: false, scale: 1 });
  }

  invert() {
    const { state } = this.active;
    if (!state) return;
    state.invert = !state.invert;
    this.active.touch("levels");
    this.announce(`${this.say("invert")}: ${this.say(state.invert ? "on" : "off")}`);
  }

  reset(viewport) {
    if (!viewport.state) return;
    viewport.state.invert = false;
    this.setWindow(viewport, null);
    this.setView(viewport, { fit: true, scale: 1, cx: 0.5, cy: 0.5 });
  }

  overlays() {
    this.memory.overlays = !this.memory.overlays;
    this.announce(`${this.say("overlays")}: ${this.say(this.memory.overlays ? "on" : "off")}`);
    for (const viewport of this.viewports) viewport.touch("marks");
  }

  expand() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.().catch(() => {});
  }

  // ---- tools and shapes

  get drawing() {
    return DRAWING.includes(this.tool) || this.tool === "ruler";
  }

  #takeTool(tool) {
    this.tool = tool || null;
    this.root.dataset.tool = this.tool || "select";
    this.schedule();
  }

  setTool(tool) {
    if (DRAWING.includes(tool) && !this.data.enabled_drawing) {
      this.announce(this.say("no_drawing"));
      return;
    }
    this.cancelDraft();
    this.#takeTool(tool);
    const how = ["box", "ruler"].includes(tool) ? ` ${this.say("shape_hint")}` : "";
    this.announce(this.say(`tool_${tool || "select"}`) + how);
  }

  sayShape(viewport) {
    const { points, tool } = viewport.draft;
    const [x, y, right, bottom] = points.flat().map(Math.round);
    const values = { x, y, width: Math.abs(right - x), height: Math.abs(bottom - y) };
    this.announce(this.say(tool === "box" ? "shape_box" : "shape_ruler", values));
  }

  cancelDraft() {
    for (const viewport of this.viewports) {
      if (!viewport.draft) continue;
      viewport.draft = null;
      viewport.touch("marks");
    }
  }

  /** Escape: takes back the gesture, the shape, the drawing tool, in this order. */
  escape() {
    if (this.cancel?.()) return true;
    if (this.viewports.some((viewport) => viewport.draft)) {
      this.cancelDraft();
      this.announce(this.say("cancelled"));
      return true;
    }
    if (!this.drawing) return false;
    this.setTool("window");
    return true;
  }

  finishDraft(viewport) {
    const { draft } = viewport;
    viewport.draft = null;
    viewport.touch("marks");
    if (!draft || !viewport.painted) return;
    const { image, frame } = viewport.painted;
    if (draft.tool === "ruler") {
      const key = frameKey(image.id, frame);
      this.memory.rulers.set(key, [...this.rulersOf(image.id, frame), draft.points]);
      return;
    }
    const shape = shapeOf(draft, viewport.place, viewport.pixelRatio);
    if (!shape) {
      this.announce(this.say("too_small"));
      return;
    }
    const pending = { ...draft, keyboard: false, closed: true, image: image.id, frame };
    viewport.pending.push(pending);
    // Stays until the page has its region, or has evidently not wanted it.
    setTimeout(() => {
      viewport.pending = viewport.pending.filter((one) => one !== pending);
      viewport.touch("marks");
    }, PENDING_MS);
    this.outbox.post("drawn", { image: image.id, frame, ...shape });
    this.announce(this.say("drawn"));
  }

  removeRuler() {
    const { painted } = this.active;
    if (!painted) return;
    const rulers = this.rulersOf(painted.image.id, painted.frame);
    this.memory.rulers.set(frameKey(painted.image.id, painted.frame), rulers.slice(0, -1));
    this.active.touch("marks");
  }

  // ---- regions

  pick(region) {
    if (!region) return;
    this.outbox.post("picked", { region: region.id, sentence: region.sentence ?? null });
    this.announce([this.say(`kind_${region.kind}`), region.label].filter(Boolean).join(": "));
  }

  /** The keyboard's way to a region: the next one in the stack, brought into view and picked. */
  nextRegion(direction) {
    const viewport = this.active;
    if (!viewport.stack) return;
    const placed = this.data.regions
      .map((region) => ({ region, slot: viewport.stack.slotOf(region.image, region.frame || 0) }))
      .filter((one) => one.slot >= 0)
      .sort((a, b) => a.slot - b.slot);
    if (!placed.length) {
      this.announce(this.say("no_regions"));
      return;
    }
    const last = placed.findIndex((one) => one.region.id === this.lastRegion);
    const next = last < 0 && direction < 0 ? placed.length - 1 : last + direction;
    const { region } = placed[(next + placed.length) % placed.length];
    this.lastRegion = region.id;
    this.#show(viewport, region);
    this.pick(region);
  }

  #focus(focus) {
    if (!focus || focus.nonce === this.memory.focus) return;
    const region = this.data.regions.find((one) => one.id === focus.region);
    if (!region) return;
    this.memory.focus = focus.nonce;
    const holds = (viewport) => viewport.stack && viewport.stack.slotOf(region.image) >= 0;
    let viewport = holds(this.active) ? this.active : this.viewports.find(holds);
    if (!viewport) {
      const stack = [...this.stacks.values()].find((one) => one.slotOf(region.image) >= 0);
      if (!stack) return;
      viewport = this.active;
      viewport.setStack(stack);
      this.#title(viewport);
    }
    this.#show(viewport, region);
  }

  #show(viewport, region) {
    viewport.playing = false;
    this.scrollTo(viewport, viewport.stack.slotOf(region.image, region.frame || 0));
    viewport.awaited = region;
    this.activate(viewport);
    this.schedule();
  }

  #arrived(viewport, now) {
    const { awaited, painted } = viewport;
    if (!awaited || painted?.image.id !== awaited.image || painted.frame !== (awaited.frame || 0)) return;
    viewport.awaited = null;
    viewport.bring(awaited);
    viewport.flash = { id: awaited.id, since: now, strength: 1 };
    viewport.touch("marks");
  }

  close() {
    this.closed = true;
    cancelAnimationFrame(this.scheduled);
    clearTimeout(this.settling);
    this.stop.abort();
    this.resizing.disconnect();
    this.unlisten();
    this.outbox.close();
    for (const viewport of this.viewports) {
      viewport.stop.abort();
      store.want(viewport, []);
    }
    this.root.remove();
  }
}

/** One viewport's window for another: the same values where they mean the same, else as far from usual. */
function alikeWindow(from, to) {
  const win = from.windowOf(from.image);
  if (from.image.unit && from.image.unit === to.image.unit) return win;
  const [a, b] = [from, to].map((viewport) => usualWindow(viewport.image));
  const ratio = b.width / a.width;
  return {
    center: b.center + (win.center - a.center) * ratio,
    width: Math.max(win.width * ratio, 1),
    fn: b.fn,
  };
}

const viewers = new WeakMap();

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement, data);
    viewers.set(parentElement, viewer);
  }
  viewer.update(data, setStateValue, setTriggerValue);
  return () => {
    viewer.close();
    viewers.delete(parentElement);
  };
}
