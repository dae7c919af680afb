// The visible part of an image on the canvas's own pixels: averaged over areas where it is made
// smaller, linear between pixels where larger, untouched at one to one.

/**
 * For each of `count` device pixels from `first` on: which source pixels it is made of.
 * device = source * scale + offset; the source has `size` pixels.
 */
export function taps(first, count, scale, offset, size) {
  const start = new Int32Array(count);
  const number = new Int32Array(count);
  const weights = [];
  const from = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    from[i] = weights.length;
    const low = (first + i - offset) / scale;
    const high = (first + i + 1 - offset) / scale;
    if (scale < 1) {
      const a = Math.min(Math.max(low, 0), size);
      const b = Math.min(Math.max(high, 0), size);
      const begin = Math.min(Math.floor(a), size - 1);
      const end = Math.max(Math.min(Math.ceil(b - 1e-9), size), begin + 1);
      start[i] = begin;
      number[i] = end - begin;
      const total = b - a;
      for (let k = begin; k < end; k++) {
        const part = Math.min(b, k + 1) - Math.max(a, k);
        weights.push(total > 0 ? Math.max(part, 0) / total : 1 / (end - begin));
      }
    } else {
      const middle = Math.min(Math.max((low + high) / 2 - 0.5, 0), size - 1);
      const begin = Math.floor(middle + 1e-9);
      const part = Math.max(middle - begin, 0);
      start[i] = begin;
      if (part < 1e-6 || begin + 1 >= size) {
        number[i] = 1;
        weights.push(1);
      } else {
        number[i] = 2;
        weights.push(1 - part, part);
      }
    }
  }
  return { start, number, from, weights: Float64Array.from(weights), count };
}

/** The device pixels that the image covers, cut to the canvas: { x, y, width, height }. */
export function covered(place, image, width, height) {
  const x = Math.max(0, Math.round(place.ox));
  const y = Math.max(0, Math.round(place.oy));
  const right = Math.min(width, Math.round(place.ox + image.columns * place.sx));
  const bottom = Math.min(height, Math.round(place.oy + image.rows * place.sy));
  return { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) };
}

/**
 * Values of the covered device pixels, of the pixels' own type (whole ones rounded), interleaved
 * if there are several samples.
 */
export function resampled(pixels, image, place, area) {
  const out = new pixels.constructor(area.width * area.height * image.samples);
  if (!out.length) return out;
  const { columns, rows, samples, values, factor } = halved(pixels, image, Math.max(place.sx, place.sy));
  const across = taps(area.x, area.width, place.sx * factor, place.ox, columns);
  const down = taps(area.y, area.height, place.sy * factor, place.oy, rows);
  if (across.weights.length === area.width && down.weights.length === area.height) {
    copied(values, columns, samples, across.start, down.start, out);
    return out;
  }
  const width = area.width * samples;
  const narrow = samples === 1 ? narrowedGrey : narrowed;
  // Rows are narrowed once each, and kept only while a device row still needs them.
  const held = new Map();
  const spare = [];
  const sum = new Float64Array(width);
  for (let j = 0; j < area.height; j++) {
    const begin = down.start[j];
    const end = begin + down.number[j];
    for (const [row, used] of held) {
      if (row >= begin) continue;
      held.delete(row);
      spare.push(used);
    }
    for (let k = begin; k < end; k++) {
      let row = held.get(k);
      if (!row) {
        row = spare.pop() || new Float64Array(width);
        narrow(values, k * columns * samples, across, row, samples);
        held.set(k, row);
      }
      const weight = down.weights[down.from[j] + k - begin];
      if (k === begin) begun(sum, row, weight);
      else added(sum, row, weight);
    }
    stored(sum, out, j * width);
  }
  return out;
}

// Loops of their own, which is what makes the browser compile them well.

function begun(sum, row, weight) {
  for (let i = 0; i < sum.length; i++) sum[i] = weight * row[i];
}

function added(sum, row, weight) {
  for (let i = 0; i < sum.length; i++) sum[i] += weight * row[i];
}

/** Rounds where the values are whole. */
function stored(sum, out, at) {
  if (out instanceof Float32Array) out.set(sum, at);
  // Shifted above 0, where cutting off is rounding down, which is much faster than Math.round.
  else for (let i = 0; i < sum.length; i++) out[at + i] = ((sum[i] + 32768.5) | 0) - 32768;
}

const smaller = new WeakMap();

/**
 * The image at half its size, and half again, down to where `scale` still makes it smaller: a film
 * that is fitted and moved need not be read whole each time. Kept for as long as its pixels are.
 */
export function halved(pixels, image, scale) {
  let level = { values: pixels, columns: image.columns, rows: image.rows, samples: image.samples, factor: 1 };
  while (scale * level.factor * 2 <= 1) {
    if (!smaller.has(level.values)) smaller.set(level.values, half(level));
    level = smaller.get(level.values);
  }
  return level;
}

function half({ values, columns, rows, samples, factor }) {
  const width = Math.ceil(columns / 2);
  const height = Math.ceil(rows / 2);
  const out = new values.constructor(width * height * samples);
  const bias = values instanceof Float32Array ? 0 : 2;
  const shift = bias ? 131072 : 0;
  for (let y = 0, at = 0; y < height; y++) {
    const first = 2 * y * columns * samples;
    const second = 2 * y + 1 < rows ? first + columns * samples : first;
    for (let x = 0; x < width; x++) {
      const left = 2 * x * samples;
      const right = 2 * x + 1 < columns ? left + samples : left;
      for (let s = 0; s < samples; s++, at++) {
        const total =
          values[first + left + s] + values[first + right + s] + values[second + left + s] + values[second + right + s];
        // Of four whole values the mean, rounded; the shift keeps it above 0 meanwhile.
        out[at] = bias ? ((total + bias + shift) >> 2) - (shift >> 2) : total / 4;
      }
    }
  }
  return { values: out, columns: width, rows: height, samples, factor: factor * 2 };
}

function copied(pixels, columns, samples, xs, ys, out) {
  let at = 0;
  for (let j = 0; j < ys.length; j++) {
    const row = ys[j] * columns;
    for (let i = 0; i < xs.length; i++) {
      const from = (row + xs[i]) * samples;
      for (let s = 0; s < samples; s++) out[at++] = pixels[from + s];
    }
  }
}

function narrowedGrey(values, offset, { start, number, from, weights, count }, row) {
  for (let i = 0; i < count; i++) {
    const base = from[i];
    const at = offset + start[i];
    const taken = number[i];
    let sum = weights[base] * values[at];
    for (let k = 1; k < taken; k++) sum += weights[base + k] * values[at + k];
    row[i] = sum;
  }
}

function narrowed(values, offset, { start, number, from, weights, count }, row, samples) {
  for (let i = 0; i < count; i++) {
    const base = from[i];
    for (let s = 0; s < samples; s++) {
      let at = offset + start[i] * samples + s;
      let sum = 0;
      for (let k = 0; k < number[i]; k++, at += samples) sum += weights[base + k] * values[at];
      row[i * samples + s] = sum;
    }
  }
}
