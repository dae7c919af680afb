// Windows: from values to 0..1, as PS3.3 C.11.2.1 defines it; the same as medvlm/image/window.py.

/** A window is { center, width, fn }; fn is LINEAR, LINEAR_EXACT or SIGMOID. */
export function windowed(value, { center, width, fn }) {
  if (fn === "SIGMOID") {
    const exponent = Math.min(Math.max((-4 * (value - center)) / width, -700), 700);
    return 1 / (1 + Math.exp(exponent));
  }
  let c = center;
  let w = width;
  if (fn === "LINEAR") {
    c -= 0.5;
    w -= 1;
    if (w === 0) return Number.isNaN(value) ? value : Number(value > c);
  }
  // NaN stays NaN, as both comparisons with it are false.
  const part = (value - c) / w + 0.5;
  return part < 0 ? 0 : part > 1 ? 1 : part;
}

/** The grey level 0..255 of a value; a value that is none (NaN) is black. */
export function grey(value, win, invert) {
  const part = windowed(value, win);
  if (Number.isNaN(part)) return 0;
  return Math.round(255 * (invert ? 1 - part : part));
}

export const opaque = (level) => (0xff000000 | (level << 16) | (level << 8) | level) >>> 0;

export const BLACK = opaque(0);

/**
 * Packed RGBA of every 16-bit pattern. `signed`: the patterns are two's complement. `padding`: a
 * value that is none, and black in every window.
 */
export function lookupTable(win, invert, signed, padding = null, table = new Uint32Array(65536)) {
  for (let pattern = 0; pattern < 65536; pattern++) {
    const value = signed && pattern > 32767 ? pattern - 65536 : pattern;
    table[pattern] = value === padding ? BLACK : opaque(grey(value, win, invert));
  }
  return table;
}

/** The least width that a function takes. */
export const leastWidth = (fn) => (fn === "LINEAR" ? 1 : 1e-6);

/** A window that holds the whole range of values. */
export function fullRange(minimum, maximum) {
  return { center: (minimum + maximum) / 2, width: Math.max(maximum - minimum, 1), fn: "LINEAR_EXACT" };
}

/**
 * The window after a drag of so many CSS pixels: to the right wider, downwards a higher center.
 * Windows of whole values stay whole where that is finer than what anyone sees.
 */
export function dragged(start, dx, dy, whole) {
  const step = Math.max(start.width, leastWidth(start.fn)) / 300;
  let width = start.width + dx * step;
  let center = start.center + dy * step;
  if (whole && start.width >= 64) {
    width = Math.round(width);
    center = Math.round(center);
  }
  return { center, width: Math.max(width, leastWidth(start.fn)), fn: start.fn };
}

const asWindow = ({ center, width, function: fn }) => ({ center, width, fn: fn || "LINEAR" });

/** What an image is shown with at first: the file's first window, else what the desk proposes. */
export function usualWindow(header) {
  const offer = header.windows[0] || header.window;
  return offer ? asWindow(offer) : fullRange(header.minimum, header.maximum);
}

/** The window of a choice { win } or { index } (of the file's), or of none. */
export function chosenWindow(header, choice) {
  if (choice && choice.win) return choice.win;
  const offer = choice && header.windows[choice.index];
  return offer ? asWindow(offer) : usualWindow(header);
}

/** Usual CT windows in Hounsfield units: [word, center, width]. */
export const CT_WINDOWS = [
  ["lung", -600, 1500],
  ["bone", 500, 2000],
  ["soft_tissue", 40, 400],
  ["brain", 40, 80],
];

/** The windows on offer for an image: the file's, or one of ours, then the usual ones of CT. */
export function presetsOf(header, words) {
  const offers = header.windows.map((one, index) => ({
    label: one.label || words("preset_file", { number: index + 1 }),
    index,
  }));
  if (!offers.length) {
    offers.push({ label: words("preset_start"), index: 0 });
    offers.push({ label: words("preset_full"), win: fullRange(header.minimum, header.maximum) });
  }
  if (header.unit === "HU") {
    for (const [word, center, width] of CT_WINDOWS) {
      offers.push({ label: words(`preset_${word}`), win: { center, width, fn: "LINEAR" } });
    }
  }
  return offers;
}
