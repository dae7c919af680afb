// The keyboard: one table for what is done and for what the help lists.

import { inside } from "./geometry.js";

/** [keys, word of the help, action(viewer, event)]; action is absent where another line has it. */
export const KEYS = [
  [["V"], "tool_select", (viewer) => viewer.setTool(null)],
  [["W"], "tool_window", (viewer) => viewer.setTool("window")],
  [["P"], "tool_pan", (viewer) => viewer.setTool("pan")],
  [["Z"], "tool_zoom", (viewer) => viewer.setTool("zoom")],
  [["M"], "tool_ruler", (viewer) => viewer.setTool("ruler")],
  [["B"], "tool_box", (viewer) => viewer.setTool("box")],
  [["G"], "tool_polygon", (viewer) => viewer.setTool("polygon")],
  [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "help_presets", (viewer, event) => viewer.preset(Number(event.key) - 1)],
  [["I"], "invert", (viewer) => viewer.invert()],
  [["F"], "fit", (viewer) => viewer.fit()],
  [["A"], "actual", (viewer) => viewer.actual()],
  [["+", "="], "zoom_in", (viewer) => viewer.zoom(viewer.active, 1.25)],
  [["-", "_"], "zoom_out", (viewer) => viewer.zoom(viewer.active, 0.8)],
  [["R"], "reset", (viewer) => viewer.reset(viewer.active)],
  [["C"], "cine", (viewer) => viewer.playOrPause()],
  [["["], "slower", (viewer) => viewer.faster(1 / 1.5)],
  [["]"], "faster", (viewer) => viewer.faster(1.5)],
  [["L"], "linked", (viewer) => viewer.link()],
  [["O"], "overlays", (viewer) => viewer.overlays()],
  [["N"], "next_region", (viewer, event) => viewer.nextRegion(event.shiftKey ? -1 : 1)],
  [["Delete", "Backspace"], "remove_ruler", (viewer) => viewer.removeRuler()],
  [["E"], "expand", (viewer) => viewer.expand()],
  [["?"], "help", (viewer) => viewer.help.open()],
];

/** Lines of the help that have no single action above: [what to press, word]. */
export const GESTURES = [
  ["↑ ↓ PageUp PageDown Home End", "help_scroll"],
  ["⇧ ← → ↑ ↓", "help_window_keys"],
  ["help_wheel", "help_scroll"],
  ["help_ctrl_wheel", "help_zoom"],
  ["help_right_drag", "tool_window"],
  ["help_middle_drag", "tool_pan"],
  ["help_double_click", "reset"],
  ["Enter", "help_shape_begin"],
  ["← → ↑ ↓", "help_shape_move"],
  ["⇧ ← → ↑ ↓", "help_shape_size"],
  ["Esc", "help_cancel"],
];

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const COARSE_PX = 10;
const PAN_PX = 40;

/** Acts on a key that came to the viewer; returns whether it was one of ours. */
export function pressed(viewer, event) {
  const origin = event.composedPath()[0];
  if (["INPUT", "SELECT", "TEXTAREA"].includes(origin.tagName)) return false;
  const viewport = viewer.active;
  const onButton = origin.tagName === "BUTTON";
  if (event.key === "Escape") return viewer.escape();
  if (event.altKey || event.metaKey) return false;
  const arrow = ARROWS[event.key];
  if (arrow) return arrowed(viewer, viewport, arrow, event);
  if (event.ctrlKey) return false;
  if (!onButton && event.key === "Enter") return entered(viewer, viewport);
  if (!onButton && event.key === " ") {
    viewer.spaceHeld = true;
    return true;
  }
  const steps = { PageUp: -10, PageDown: 10 }[event.key];
  if (steps) viewer.scrollBy(viewport, steps);
  else if (event.key === "Home") viewer.scrollTo(viewport, 0);
  else if (event.key === "End") viewer.scrollTo(viewport, viewport.length - 1);
  else {
    const found = KEYS.find(([keys]) => keys.some((key) => key.toLowerCase() === event.key.toLowerCase()));
    if (!found) return false;
    found[2](viewer, event);
  }
  return true;
}

function arrowed(viewer, viewport, [dx, dy], event) {
  if (viewport.draft?.keyboard) moveShape(viewer, viewport, dx, dy, event);
  else if (event.ctrlKey) return false;
  else if (event.shiftKey) viewer.nudgeWindow(viewport, dx * 10, dy * 10);
  else if (viewer.tool === "pan") viewer.nudge(viewport, -dx * PAN_PX, -dy * PAN_PX);
  else viewer.scrollBy(viewport, dx + dy);
  return true;
}

/** Enter begins a box or ruler in the middle of what is seen, and confirms it. */
function entered(viewer, viewport) {
  if (viewport.draft?.keyboard) {
    viewer.finishDraft(viewport);
    return true;
  }
  if (!viewport.image || viewport.draft || !["box", "ruler"].includes(viewer.tool)) return false;
  const { area } = viewport;
  const across = (part) => area.x + part * area.width;
  const down = (part) => area.y + part * area.height;
  const point = (x, y) => inside(viewport.image, viewer.sourceIn(viewport, across(x), down(y)));
  const points = [point(0.4, 0.4), point(0.6, viewer.tool === "box" ? 0.6 : 0.4)];
  viewport.draft = { tool: viewer.tool, points, keyboard: true };
  viewport.touch("marks");
  viewer.sayShape(viewport);
  return true;
}

/** Arrows move the shape, with Shift its second corner; Ctrl makes the steps one pixel. */
function moveShape(viewer, viewport, dx, dy, event) {
  const { draft, place, image, pixelRatio } = viewport;
  const coarse = COARSE_PX * pixelRatio;
  const step = event.ctrlKey ? [1, 1] : [Math.max(1, coarse / place.sx), Math.max(1, coarse / place.sy)];
  const [a, b] = draft.points;
  const moved = ([x, y]) => [x + dx * step[0], y + dy * step[1]];
  if (event.shiftKey) draft.points = [a, inside(image, moved(b))];
  else {
    // The whole shape stops at the edge, and keeps its size.
    const next = [moved(a), moved(b)];
    const held = next.map((point) => inside(image, point));
    const off = [0, 1].map((axis) => {
      const offs = held.map((point, index) => point[axis] - next[index][axis]);
      return offs.reduce((most, one) => (Math.abs(one) > Math.abs(most) ? one : most), 0);
    });
    draft.points = next.map(([x, y]) => [x + off[0], y + off[1]]);
  }
  viewport.touch("marks");
  viewer.sayShape(viewport);
}
