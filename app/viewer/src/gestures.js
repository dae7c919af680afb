// What the pointer does in a pane: each press begins a gesture { move, end, cancel }.

import { boundsOf, boxOf, inside, panned, simplified, toSource, zoomed } from "./geometry.js";
import { dragged } from "./window.js";

const CLICK_PX = 4;
const SLICE_PX = 8;
const WHEEL_PX = 60;

/** Listens to a viewport's pointer and wheel until `signal` aborts. */
export function listen(viewer, viewport, signal) {
  const { element: pane, track } = viewport;
  let gesture = null;
  let wheel = 0;
  const at = (event) => {
    const box = pane.getBoundingClientRect();
    const ratio = viewport.pixelRatio;
    const left = event.clientX - box.left - pane.clientLeft;
    return [left * ratio, (event.clientY - box.top - pane.clientTop) * ratio];
  };
  const on = (node, name, handler, options = {}) =>
    node.addEventListener(name, handler, { signal, ...options });

  on(pane, "pointerdown", (event) => {
    if (event.target.closest("button, select, .track")) return;
    pane.focus({ preventScroll: true });
    viewer.activate(viewport);
    if (gesture || !viewport.image) return;
    // Keeps a middle press from scrolling the page, and text from being selected.
    event.preventDefault();
    pane.setPointerCapture(event.pointerId);
    const start = at(event);
    const kind = gestureKind(viewer, event);
    gesture = { ...begin(kind, viewer, viewport, start), start, event, moved: false };
    viewer.cancel = () => {
      if (!gesture) return false;
      gesture.cancel?.();
      gesture = null;
      return true;
    };
  });
  on(pane, "pointermove", (event) => {
    const here = at(event);
    if (!gesture) {
      viewport.point(here);
      return;
    }
    const far = Math.hypot(event.clientX - gesture.event.clientX, event.clientY - gesture.event.clientY);
    if (!gesture.moved && far < CLICK_PX) return;
    gesture.moved = true;
    const all = gesture.everyPoint && event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const one of all.length ? all : [event]) gesture.move(at(one), one);
    viewport.point(here);
  });
  const finish = (event) => {
    if (!gesture) return;
    const done = gesture;
    gesture = null;
    if (event.type !== "pointerup") done.cancel?.();
    else if (done.moved) done.end?.(at(event));
    else {
      done.cancel?.();
      if (done.event.button === 0) viewer.pick(viewport.regionUnder(done.start));
    }
  };
  on(pane, "pointerup", finish);
  on(pane, "pointercancel", finish);
  on(pane, "lostpointercapture", finish);
  on(pane, "pointerleave", () => viewport.point(null));
  on(pane, "contextmenu", (event) => event.preventDefault());
  on(pane, "dblclick", (event) => {
    if (!event.target.closest("button, select, .track") && !viewer.drawing) viewer.reset(viewport);
  });
  on(
    pane,
    "wheel",
    (event) => {
      if (!viewport.image) return;
      const pixels = event.deltaY * (event.deltaMode === 1 ? 20 : event.deltaMode === 2 ? 200 : 1);
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        viewer.activate(viewport);
        viewer.zoom(viewport, Math.exp(-pixels / 400), at(event));
        return;
      }
      // A single image leaves the wheel to the page.
      if (viewport.length < 2) return;
      event.preventDefault();
      viewer.activate(viewport);
      wheel = Math.sign(wheel) === Math.sign(pixels) ? wheel + pixels : pixels;
      // A wheel's click is one image, however many pixels it stands for; a touchpad's add up.
      const steps = Math.abs(pixels) >= WHEEL_PX ? Math.sign(pixels) : Math.trunc(wheel / (WHEEL_PX / 2));
      if (!steps) return;
      wheel = 0;
      viewer.scrollBy(viewport, steps);
    },
    { passive: false },
  );

  const slide = (event) => {
    const box = track.getBoundingClientRect();
    const part = (event.clientY - box.top) / Math.max(box.height, 1);
    viewer.scrollTo(viewport, Math.round(part * (viewport.length - 1)));
  };
  on(track, "pointerdown", (event) => {
    event.preventDefault();
    event.stopPropagation();
    pane.focus({ preventScroll: true });
    viewer.activate(viewport);
    track.setPointerCapture(event.pointerId);
    slide(event);
  });
  on(track, "pointermove", (event) => {
    if (track.hasPointerCapture(event.pointerId)) slide(event);
  });
}

function gestureKind(viewer, event) {
  if (event.button === 1 || viewer.spaceHeld) return "pan";
  if (event.button === 2) return "window";
  return viewer.tool || "scroll";
}

function begin(kind, viewer, viewport, start) {
  const { state, image } = viewport;
  const { width, height } = viewport.size;
  const ratio = viewport.pixelRatio;
  const view = { ...state.view };
  const source = (point) => inside(image, toSource(viewport.place, ...point));

  if (kind === "window") {
    if (image.samples === 3) return { move() {} };
    const win = viewport.windowOf(image);
    const before = state.window;
    const whole = !(viewport.painted.pixels instanceof Float32Array);
    return {
      move(here) {
        const [dx, dy] = [here[0] - start[0], here[1] - start[1]].map((part) => part / ratio);
        viewer.setWindow(viewport, { win: dragged(win, dx, dy, whole) });
        viewer.dragging = true;
      },
      end: () => viewer.dragEnded(),
      cancel() {
        viewer.setWindow(viewport, before);
        viewer.dragEnded();
      },
    };
  }
  if (kind === "pan") {
    return {
      move(here) {
        viewer.setView(viewport, panned(view, image, width, height, here[0] - start[0], here[1] - start[1]));
      },
    };
  }
  if (kind === "zoom") {
    return {
      move(here) {
        const factor = Math.exp((start[1] - here[1]) / ratio / 150);
        viewer.setView(viewport, zoomed(view, image, width, height, factor, ...start));
      },
    };
  }
  if (kind === "scroll") {
    const from = state.slot;
    const step = Math.max(1, Math.min(SLICE_PX, height / ratio / viewport.length)) * ratio;
    return { move: (here) => viewer.scrollTo(viewport, from + Math.round((here[1] - start[1]) / step)) };
  }
  const first = source(start);
  viewport.draft = { tool: kind, points: kind === "polygon" ? [first] : [first, first] };
  return {
    everyPoint: kind === "polygon",
    move(here) {
      const point = source(here);
      const { points } = viewport.draft;
      if (kind === "polygon") points.push(point);
      else points[1] = point;
      viewport.touch("marks");
    },
    end: () => viewer.finishDraft(viewport),
    cancel: () => viewer.cancelDraft(),
  };
}

/** The shape of a draft in source pixels; null if it is too small to mean anything. */
export function shapeOf(draft, place, ratio) {
  const fine = (value) => Math.round(value * 100) / 100;
  let polygon = null;
  if (draft.tool === "polygon") {
    // What lies within one CSS pixel of a straight line is a trembling hand.
    const seen = draft.points.map(([x, y]) => [x * place.sx, y * place.sy]);
    const kept = simplified(seen, ratio);
    polygon = kept.map(([x, y]) => [fine(x / place.sx), fine(y / place.sy)]);
    if (polygon.length < 3) return null;
  }
  const box = polygon ? boundsOf(polygon) : boxOf(...draft.points);
  const [x, y] = [fine(box.x), fine(box.y)];
  const shape = { x, y, width: fine(box.x + box.width) - x, height: fine(box.y + box.height) - y };
  if (shape.width < 1 || shape.height < 1) return null;
  return polygon ? { ...shape, polygon } : shape;
}
