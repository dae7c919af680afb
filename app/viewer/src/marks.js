// What is drawn over an image: regions, rulers, and the shape in the making. Kinds differ by line
// and by words, never by colour alone.

import { lengthOf, toDevice } from "./geometry.js";

export const KINDS = {
  machine: { colour: "#ffc94a", dash: [] },
  human: { colour: "#5fd3ff", dash: [9, 5] },
  question: { colour: "#ff9be0", dash: [3, 4] },
  answer: { colour: "#9df59a", dash: [11, 4, 2, 4] },
  prior: { colour: "#cdbbff", dash: [18, 6] },
};
const DARK = "rgba(0, 0, 0, 0.65)";
const RULER = "#ffffff";

export const kindOf = (region) => KINDS[region.kind] || KINDS.machine;

/** Draws all of it on `canvas`, whose image lies at `place`. `scale`: device pixels per CSS pixel. */
export function drawMarks(canvas, place, image, scale, marks) {
  const ctx = canvas.getContext("2d");
  ctx.clearRect(0, 0, canvas.width, canvas.height);
  const tags = [];
  const later = (one) => (one.selected || one.id === marks.hovered ? 1 : 0);
  const regions = [...marks.regions].sort((a, b) => later(a) - later(b));
  for (const region of regions) drawRegion(ctx, place, scale, region, marks);
  for (const region of regions.reverse()) drawTag(ctx, place, scale, region, marks, tags);
  for (const ruler of marks.rulers) drawRuler(ctx, place, scale, ruler, image, marks.lengthText);
  for (const shape of marks.pending) drawShape(ctx, place, scale, shape, "human");
  if (marks.draft) {
    if (marks.draft.tool === "ruler") {
      drawRuler(ctx, place, scale, marks.draft.points, image, marks.lengthText, marks.draft.keyboard);
    } else drawShape(ctx, place, scale, marks.draft, "human");
  }
}

function outline(ctx, place, region) {
  ctx.beginPath();
  if (region.polygon) {
    region.polygon.forEach(([x, y], index) => {
      const [dx, dy] = toDevice(place, x, y);
      if (index) ctx.lineTo(dx, dy);
      else ctx.moveTo(dx, dy);
    });
    ctx.closePath();
  } else {
    const [x, y] = toDevice(place, region.x, region.y);
    ctx.rect(x, y, region.width * place.sx, region.height * place.sy);
  }
}

/** A line in colour upon a wider dark one, to be seen on bone as on air. */
function stroked(ctx, scale, colour, dash, width) {
  ctx.lineJoin = "round";
  ctx.setLineDash([]);
  ctx.strokeStyle = DARK;
  ctx.lineWidth = (width + 2) * scale;
  ctx.stroke();
  ctx.setLineDash(dash.map((part) => part * scale));
  ctx.strokeStyle = colour;
  ctx.lineWidth = width * scale;
  ctx.stroke();
  ctx.setLineDash([]);
}

function drawRegion(ctx, place, scale, region, marks) {
  const { colour, dash } = kindOf(region);
  const flash = marks.flash && marks.flash.id === region.id ? marks.flash.strength : 0;
  outline(ctx, place, region);
  if (region.selected || flash) {
    ctx.setLineDash([]);
    ctx.lineJoin = "round";
    ctx.strokeStyle = flash ? `rgba(255, 255, 255, ${0.3 + 0.6 * flash})` : "rgba(255, 255, 255, 0.38)";
    ctx.lineWidth = (flash ? 9 + 8 * flash : 9) * scale;
    ctx.stroke();
  }
  const hovered = region.id === marks.hovered;
  stroked(ctx, scale, colour, dash, region.selected ? 3.25 : hovered ? 2.75 : 2);
}

function drawTag(ctx, place, scale, region, marks, taken) {
  const text = [marks.kindText(region.kind), region.label].filter(Boolean).join(": ");
  if (!text) return;
  const strong = region.selected || region.id === marks.hovered;
  ctx.font = `${strong ? 600 : 400} ${12 * scale}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  const height = 18 * scale;
  const most = ctx.canvas.width - 12 * scale;
  const shown = shortened(ctx, text, Math.min(most, 320 * scale));
  const width = ctx.measureText(shown).width + 10 * scale;
  const [left, top] = toDevice(place, region.x, region.y);
  const below = top + region.height * place.sy;
  // A region that is out of sight has no tag.
  if (left > ctx.canvas.width || top > ctx.canvas.height) return;
  if (left + region.width * place.sx < 0 || below < 0) return;
  const x = Math.min(Math.max(left, 0), ctx.canvas.width - width);
  // Above the region, or where that is out of sight below it, and clear of the tags before.
  const free = (y) =>
    y >= 0 &&
    y + height <= ctx.canvas.height &&
    !taken.some((t) => x < t.x + t.width && t.x < x + width && y < t.y + height && t.y < y + height);
  const wishes = [top - height - 2 * scale, below + 2 * scale, top + 2 * scale];
  for (let step = 1; step < 12; step++) wishes.push(top - (step + 1) * (height + 2 * scale));
  for (let step = 1; step < 12; step++) wishes.push(below + 2 * scale + step * (height + 2 * scale));
  const y = wishes.find(free);
  if (y === undefined) return;
  taken.push({ x, y, width });
  const { colour } = kindOf(region);
  ctx.globalAlpha = strong ? 1 : 0.95;
  ctx.fillStyle = strong ? colour : "rgba(8, 10, 14, 0.85)";
  ctx.fillRect(x, y, width, height);
  ctx.fillStyle = strong ? "#0b0d11" : colour;
  ctx.fillText(shown, x + 5 * scale, y + height / 2 + scale / 2);
  ctx.globalAlpha = 1;
}

function shortened(ctx, text, most) {
  if (ctx.measureText(text).width <= most) return text;
  let length = text.length;
  while (length > 1 && ctx.measureText(`${text.slice(0, length)}…`).width > most) length--;
  return `${text.slice(0, length)}…`;
}

function drawRuler(ctx, place, scale, [a, b], image, lengthText, handles = false) {
  const [ax, ay] = toDevice(place, ...a);
  const [bx, by] = toDevice(place, ...b);
  const long = Math.hypot(bx - ax, by - ay) || 1;
  const nx = (-(by - ay) / long) * 5 * scale;
  const ny = ((bx - ax) / long) * 5 * scale;
  ctx.beginPath();
  ctx.moveTo(ax, ay);
  ctx.lineTo(bx, by);
  for (const [x, y] of [[ax, ay], [bx, by]]) {
    ctx.moveTo(x - nx, y - ny);
    ctx.lineTo(x + nx, y + ny);
  }
  stroked(ctx, scale, RULER, [], 1.5);
  if (handles) ctx.strokeRect(bx - 5 * scale, by - 5 * scale, 10 * scale, 10 * scale);
  const text = lengthText(lengthOf(a, b, image));
  ctx.font = `600 ${12 * scale}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  const width = ctx.measureText(text).width + 8 * scale;
  const x = Math.min(Math.max(bx + 8 * scale, 0), ctx.canvas.width - width);
  const y = Math.min(Math.max(by + 4 * scale, 0), ctx.canvas.height - 18 * scale);
  ctx.fillStyle = "rgba(8, 10, 14, 0.85)";
  ctx.fillRect(x, y, width, 18 * scale);
  ctx.fillStyle = RULER;
  ctx.fillText(text, x + 4 * scale, y + 9.5 * scale);
}

function drawShape(ctx, place, scale, shape, kind) {
  const { colour, dash } = KINDS[kind];
  ctx.beginPath();
  if (shape.tool === "polygon") {
    shape.points.forEach(([x, y], index) => {
      const [dx, dy] = toDevice(place, x, y);
      if (index) ctx.lineTo(dx, dy);
      else ctx.moveTo(dx, dy);
    });
    if (shape.closed) ctx.closePath();
  } else {
    const [ax, ay] = toDevice(place, ...shape.points[0]);
    const [bx, by] = toDevice(place, ...shape.points[1]);
    ctx.rect(Math.min(ax, bx), Math.min(ay, by), Math.abs(bx - ax), Math.abs(by - ay));
    if (shape.keyboard) ctx.rect(bx - 5 * scale, by - 5 * scale, 10 * scale, 10 * scale);
  }
  stroked(ctx, scale, colour, dash, 2.25);
}
