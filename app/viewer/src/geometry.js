// Where a source pixel lies on the canvas, and back. Source pixels: origin at the top-left corner of
// the top-left pixel, x right, y down. Device pixels: the canvas's own, origin at its top-left corner.
//
// A place is { sx, sy, ox, oy }: device = source * s + o. sy = sx * the height over width of a pixel.

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The scale at which the whole image just fits. */
export function fitScale(image, width, height) {
  return Math.min(width / image.columns, height / (image.rows * image.aspect));
}

/**
 * The place for a view { fit, scale, cx, cy } on a canvas of so many device pixels; cx and cy are
 * the fractions of the image that lie in the canvas's middle. Offsets are whole device pixels, so
 * that at scale 1 each source pixel is one device pixel.
 */
export function placeOf(view, image, width, height) {
  const scale = view.fit ? fitScale(image, width, height) : view.scale;
  const cx = view.fit ? 0.5 : view.cx;
  const cy = view.fit ? 0.5 : view.cy;
  const sx = scale;
  const sy = scale * image.aspect;
  return {
    sx,
    sy,
    ox: Math.round(width / 2 - cx * image.columns * sx),
    oy: Math.round(height / 2 - cy * image.rows * sy),
  };
}

export const toDevice = (place, x, y) => [x * place.sx + place.ox, y * place.sy + place.oy];
export const toSource = (place, x, y) => [(x - place.ox) / place.sx, (y - place.oy) / place.sy];

/** The view zoomed by a factor, such that the source point under (x, y) stays there. */
export function zoomed(view, image, width, height, factor, x, y) {
  const place = placeOf(view, image, width, height);
  const fit = fitScale(image, width, height);
  const scale = clamp(place.sx * factor, Math.min(fit, 1) / 4, Math.max(fit * 4, 32));
  const [px, py] = toSource(place, x, y);
  return {
    fit: false,
    scale,
    cx: (px + (width / 2 - x) / scale) / image.columns,
    cy: (py + (height / 2 - y) / (scale * image.aspect)) / image.rows,
  };
}

/** The view moved by so many device pixels; the image's middle region stays on the canvas. */
export function panned(view, image, width, height, dx, dy) {
  const place = placeOf(view, image, width, height);
  const cx = view.fit ? 0.5 : view.cx;
  const cy = view.fit ? 0.5 : view.cy;
  return {
    fit: false,
    scale: place.sx,
    cx: clamp(cx - dx / (place.sx * image.columns), -0.1, 1.1),
    cy: clamp(cy - dy / (place.sy * image.rows), -0.1, 1.1),
  };
}

/** Holds a point inside the image. */
export const inside = (image, [x, y]) => [clamp(x, 0, image.columns), clamp(y, 0, image.rows)];

/** The upright box between two points. */
export function boxOf([ax, ay], [bx, by]) {
  return { x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(bx - ax), height: Math.abs(by - ay) };
}

/** The upright box around an outline. */
export function boundsOf(points) {
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  return boxOf([Math.min(...xs), Math.min(...ys)], [Math.max(...xs), Math.max(...ys)]);
}

/** Even-odd. */
export function inPolygon(points, x, y) {
  let within = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [xi, yi] = points[i];
    const [xj, yj] = points[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

/**
 * The smallest region that holds the source point, null if none does. `slack` [x, y] source pixels
 * are forgiven around a box, so that small ones can be hit.
 */
export function regionAt(regions, x, y, slack = [0, 0]) {
  let best = null;
  for (const region of regions) {
    const near =
      x >= region.x - slack[0] &&
      x <= region.x + region.width + slack[0] &&
      y >= region.y - slack[1] &&
      y <= region.y + region.height + slack[1];
    if (!near) continue;
    if (region.polygon && !inPolygon(region.polygon, x, y)) continue;
    const area = region.width * region.height;
    if (!best || area < best.area) best = { region, area };
  }
  return best && best.region;
}

/**
 * The length between two source points: millimetres where the spacing is known, else widths of a
 * pixel. Pixels that are not square count as what they are.
 */
export function lengthOf([ax, ay], [bx, by], image) {
  const [row, column] = image.spacing || [image.aspect, 1];
  return { length: Math.hypot((bx - ax) * column, (by - ay) * row), mm: Boolean(image.spacing) };
}

/** An outline without the points that say nothing at this distance (Ramer, Douglas, Peucker). */
export function simplified(points, distance) {
  if (points.length < 3) return points.slice();
  const [ax, ay] = points[0];
  const [bx, by] = points[points.length - 1];
  const base = (bx - ax) ** 2 + (by - ay) ** 2;
  let far = 0;
  let at = 0;
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i];
    const along = base ? clamp(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / base, 0, 1) : 0;
    const off = Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
    if (off > far) [far, at] = [off, i];
  }
  if (far <= distance) return [points[0], points[points.length - 1]];
  const head = simplified(points.slice(0, at + 1), distance);
  return head.slice(0, -1).concat(simplified(points.slice(at), distance));
}
