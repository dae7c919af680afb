// The bar above the panes, the legend below them, and the list of shortcuts.

import { choice, element, icon } from "./dom.js";
import { GESTURES, KEYS } from "./keys.js";
import { KINDS } from "./marks.js";

const ICONS = {
  tool_select: ["M4 2 L4 12 L7 9.5 L9 14 L10.8 13.2 L8.9 8.9 L12.5 8.7 Z"],
  tool_window: ["M8 2 A6 6 0 1 0 8 14 A6 6 0 1 0 8 2", "#M8 2 A6 6 0 0 1 8 14 Z"],
  tool_pan: ["M8 1.5 V14.5 M1.5 8 H14.5 M6 3.5 L8 1.5 L10 3.5 M6 12.5 L8 14.5 L10 12.5 M3.5 6 L1.5 8 L3.5 10 M12.5 6 L14.5 8 L12.5 10"],
  tool_zoom: ["M6.8 2 A4.8 4.8 0 1 0 6.8 11.6 A4.8 4.8 0 1 0 6.8 2 M10.3 10.3 L14.5 14.5 M4.6 6.8 H9 M6.8 4.6 V9"],
  tool_ruler: ["M1.5 11 L11 1.5 L14.5 5 L5 14.5 Z M4.5 8 L6 9.5 M7 5.5 L8.5 7 M9.5 3 L11 4.5"],
  tool_box: ["M2.5 3.5 H13.5 V12.5 H2.5 Z"],
  tool_polygon: ["M3 9 C2 4 6 2 9 3 C13 4 14.5 7 13 10 C11.5 13.5 4 14 3 9 Z"],
  invert: ["M2.5 2.5 H13.5 V13.5 H2.5 Z", "#M2.5 2.5 L13.5 13.5 H2.5 Z"],
  fit: ["M2 6 V2 H6 M10 2 H14 V6 M14 10 V14 H10 M6 14 H2 V10"],
  reset: ["M3.2 5.5 A5.5 5.5 0 1 1 2.5 8 M3 2.2 V5.7 H6.5"],
  play: ["#M4 2.5 L13 8 L4 13.5 Z"],
  pause: ["#M4 3 H6.5 V13 H4 Z M9.5 3 H12 V13 H9.5 Z"],
  overlays: ["M1.5 8 C4 3.5 12 3.5 14.5 8 C12 12.5 4 12.5 1.5 8 Z", "#M8 6 A2 2 0 1 0 8 10 A2 2 0 1 0 8 6"],
  linked: ["M6.5 9.5 L9.5 6.5 M7 4.5 L9 2.5 A3 3 0 0 1 13.5 7 L11.5 9 M9 11.5 L7 13.5 A3 3 0 0 1 2.5 9 L4.5 7"],
  expand: ["M9.5 2 H14 V6.5 M14 2 L9 7 M6.5 14 H2 V9.5 M2 14 L7 9"],
};
const TOOLS = [null, "window", "pan", "zoom", "ruler", "box", "polygon"];
export const LAYOUTS = { "1": [1, 1], "1x2": [1, 2], "2x1": [2, 1], "2x2": [2, 2] };

export class Toolbar {
  constructor(viewer) {
    this.viewer = viewer;
    this.buttons = new Map();
    const group = (...children) => element("div", { class: "group", role: "group" }, ...children);
    const next = () => viewer.active.element;
    this.presets = choice(viewer.say("preset"), (value) => viewer.preset(Number(value)), next);
    this.layout = choice(viewer.say("layout"), (value) => viewer.setLayout(value), next);
    this.layout.append(
      ...Object.keys(LAYOUTS).map((one) => element("option", { value: one, text: one.replace("x", " × ") })),
    );
    this.speed = element("span", { class: "speed" });
    this.element = element(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": viewer.say("toolbar") },
      group(...TOOLS.map((tool) => this.#tool(tool))),
      group(
        this.presets,
        this.#button("invert", "I", () => viewer.invert(), true),
        this.#button("fit", "F", () => viewer.fit(), true),
        this.#button("actual", "A", () => viewer.actual(), false, "1:1"),
        this.#button("reset", "R", () => viewer.reset(viewer.active)),
      ),
      group(
        this.#button("slower", "[", () => viewer.faster(1 / 1.5), false, "−"),
        this.#button("cine", "C", () => viewer.playOrPause(), true),
        this.#button("faster", "]", () => viewer.faster(1.5), false, "+"),
        this.speed,
      ),
      group(
        this.#button("overlays", "O", () => viewer.overlays(), true),
        this.#button("linked", "L", () => viewer.link(), true),
        this.layout,
        this.#button("expand", "E", () => viewer.expand(), true),
        this.#button("help", "?", () => viewer.help.open(), false, "?"),
      ),
    );
  }

  #tool(tool) {
    const name = `tool_${tool || "select"}`;
    const key = KEYS.find(([, word]) => word === name)[0][0];
    return this.#button(name, key, () => this.viewer.setTool(tool), true);
  }

  #button(name, key, act, toggles = false, text = "") {
    const label = this.viewer.say(name);
    const made = element(
      "button",
      {
        type: "button",
        title: `${label} (${key})`,
        "aria-label": label,
        "aria-keyshortcuts": key,
        "aria-pressed": toggles ? "false" : undefined,
        "data-name": name,
        onclick: act,
      },
      text ? element("span", { class: "glyph", text }) : icon(ICONS[name] || ICONS.play),
      text === key ? null : element("kbd", { text: key, "aria-hidden": "true" }),
    );
    this.buttons.set(name, made);
    return made;
  }

  /** Shows what is in force. */
  update() {
    const { viewer } = this;
    const viewport = viewer.active;
    const press = (name, on) => this.buttons.get(name).setAttribute("aria-pressed", String(Boolean(on)));
    for (const tool of TOOLS) press(`tool_${tool || "select"}`, viewer.tool === tool);
    for (const name of ["tool_box", "tool_polygon"]) {
      this.buttons.get(name).disabled = !viewer.data.enabled_drawing;
    }
    const many = viewport.length > 1;
    for (const name of ["cine", "slower", "faster"]) this.buttons.get(name).disabled = !many;
    this.buttons.get("linked").disabled = viewer.viewports.length < 2;
    press("invert", viewport.state?.invert);
    press("fit", viewport.state?.view.fit);
    press("overlays", viewer.memory.overlays);
    press("linked", viewer.linked);
    press("expand", viewer.root.matches(":fullscreen"));
    this.#cine(viewport.playing, press);
    this.speed.textContent = many ? viewer.say("fps", { number: Math.round(viewer.fps) }) : "";
    this.layout.value = viewer.layout;
    this.#presets(viewer.presetsOf(viewport), viewport.state?.window || null);
  }

  #cine(playing, press) {
    press("cine", playing);
    if (this.playing === playing) return;
    this.playing = playing;
    const button = this.buttons.get("cine");
    button.querySelector("svg").replaceWith(icon(ICONS[playing ? "pause" : "play"]));
  }

  #presets(offers, chosen) {
    const own = this.viewer.say("preset_own");
    const lines = offers.map((one, index) => `${index < 9 ? `${index + 1}  ` : ""}${one.label}`);
    const wanted = JSON.stringify([own, lines]);
    if (this.offered !== wanted) {
      this.offered = wanted;
      const option = (text, index) => element("option", { value: index, text });
      this.presets.replaceChildren(option(own, -1), ...lines.map(option));
      this.presets.options[0].disabled = true;
    }
    this.presets.disabled = !offers.length;
    const same = (one) =>
      chosen?.win
        ? one.index === undefined && JSON.stringify(one.win) === JSON.stringify(chosen.win)
        : one.index === (chosen ? chosen.index : 0);
    this.presets.value = String(offers.findIndex(same));
  }
}

/** Which line stands for what, of the kinds that there are. */
export class Legend {
  constructor(viewer) {
    this.viewer = viewer;
    this.element = element("div", { class: "legend", "aria-label": viewer.say("legend") });
  }

  update() {
    const there = new Set(this.viewer.data.regions.map((region) => region.kind));
    const kinds = Object.keys(KINDS).filter((kind) => there.has(kind));
    if (this.shown === kinds.join()) return;
    this.shown = kinds.join();
    this.element.replaceChildren(
      ...kinds.map((kind) => {
        const { colour, dash } = KINDS[kind];
        const line = icon("M0 4 H34", { viewBox: "0 0 34 8", class: "line" });
        line.firstChild.setAttribute("stroke", colour);
        line.firstChild.setAttribute("stroke-dasharray", dash.join(" "));
        return element("span", {}, line, element("span", { text: this.viewer.say(`kind_${kind}`) }));
      }),
    );
  }
}

/** The list of shortcuts, over the viewer. */
export class Help {
  constructor(viewer) {
    const say = (word) => viewer.say(word);
    const row = (keys, word) =>
      element("tr", {}, element("td", {}, element("kbd", { text: keys })), element("td", { text: say(word) }));
    const spoken = (keys) => (keys.startsWith("help_") ? say(keys) : keys);
    const keysOf = (keys) => (keys.length > 2 ? `${keys[0]} … ${keys.at(-1)}` : keys[0]);
    this.element = element(
      "dialog",
      { class: "help", "aria-label": say("help") },
      element("h2", { text: say("help") }),
      element(
        "div",
        { class: "columns" },
        element("table", {}, ...KEYS.map(([keys, word]) => row(keysOf(keys), word))),
        element("table", {}, ...GESTURES.map(([keys, word]) => row(spoken(keys), word))),
      ),
      element("button", { type: "button", text: say("close"), onclick: () => this.element.close() }),
    );
    // Keys in the dialog are its own: Escape closes it, and nothing moves behind it.
    this.element.addEventListener("keydown", (event) => event.stopPropagation());
    this.element.addEventListener("close", () => viewer.active.element.focus({ preventScroll: true }));
  }

  open() {
    if (!this.element.open) this.element.showModal();
  }
}
