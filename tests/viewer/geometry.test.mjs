import assert from "node:assert/strict";
import { test } from "node:test";

import {
  boundsOf,
  lengthOf,
  panned,
  placeOf,
  regionAt,
  simplified,
  toDevice,
  toSource,
  zoomed,
} from "../../app/viewer/src/geometry.js";
import { shapeOf } from "../../app/viewer/src/gestures.js";

const SHAPES = [
  { rows: 3001, columns: 257, aspect: 1 },
  { rows: 200, columns: 1999, aspect: 1 },
  { rows: 301, columns: 299, aspect: 4 },
  { rows: 301, columns: 299, aspect: 0.5 },
];
const FIT = { fit: true, scale: 1, cx: 0.5, cy: 0.5 };
const near = (a, b, by = 1e-6) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);

test("a source point goes to the canvas and comes back", () => {
  for (const image of SHAPES) {
    for (const view of [FIT, { fit: false, scale: 2.7, cx: 0.3, cy: 0.8 }]) {
      const place = placeOf(view, image, 803, 611);
      const point = [image.columns * 0.37, image.rows * 0.81];
      const back = toSource(place, ...toDevice(place, ...point));
      near(back[0], point[0]);
      near(back[1], point[1]);
    }
  }
});

test("a fitted image lies within the canvas, touches two sides, and is drawn at its true shape", () => {
  for (const image of SHAPES) {
    const place = placeOf(FIT, image, 803, 611);
    const [left, top] = toDevice(place, 0, 0);
    const [right, bottom] = toDevice(place, image.columns, image.rows);
    assert.ok(left >= -1 && top >= -1 && right <= 804 && bottom <= 612);
    assert.ok(Math.max((right - left) / 803, (bottom - top) / 611) > 0.995);
    near((bottom - top) / (right - left), (image.rows * image.aspect) / image.columns, 1e-9);
  }
});

test("zooming holds the point under the pointer, to a device pixel", () => {
  for (const image of SHAPES) {
    const before = placeOf(FIT, image, 803, 611);
    const point = toSource(before, 420, 200);
    const place = placeOf(zoomed(FIT, image, 803, 611, 3, 420, 200), image, 803, 611);
    const [x, y] = toDevice(place, ...point);
    near(x, 420, 1);
    near(y, 200, 1);
  }
});

test("panning moves the image by what the pointer moved", () => {
  const image = SHAPES[2];
  const view = { fit: false, scale: 2, cx: 0.5, cy: 0.5 };
  const [a, b] = [view, panned(view, image, 803, 611, 31, -17)].map((one) => placeOf(one, image, 803, 611));
  near(b.ox - a.ox, 31, 1);
  near(b.oy - a.oy, -17, 1);
});

test("an image stays within reach however far it is panned", () => {
  const image = SHAPES[0];
  const place = placeOf(panned(FIT, image, 803, 611, 1e6, 1e6), image, 803, 611);
  assert.ok(place.ox < 803 && place.oy < 611);
});

test("lengths are in millimetres where the spacing is known, along each axis its own", () => {
  const image = { spacing: [0.4, 0.1], aspect: 4 };
  near(lengthOf([0, 0], [30, 0], image).length, 3);
  near(lengthOf([0, 0], [0, 30], image).length, 12);
  near(lengthOf([10, 10], [40, 20], image).length, 5);
  assert.deepEqual(lengthOf([0, 0], [3, 2], { spacing: null, aspect: 2 }), { length: 5, mm: false });
});

test("of regions one within the other the smaller is meant, and outlines count as outlines", () => {
  const large = { id: "large", x: 0, y: 0, width: 100, height: 100 };
  const small = { id: "small", x: 40, y: 40, width: 10, height: 10 };
  const ring = { id: "ring", x: 60, y: 60, width: 30, height: 30, polygon: [[60, 60], [90, 60], [60, 90]] };
  const regions = [small, large, ring];
  assert.equal(regionAt(regions, 45, 45).id, "small");
  assert.equal(regionAt(regions, 65, 65).id, "ring");
  assert.equal(regionAt(regions, 88, 88).id, "large");
  assert.equal(regionAt(regions, 101, 50), null);
  assert.equal(regionAt(regions, 101, 50, [2, 2]).id, "large");
});

test("a trembling line loses its points and a closed outline keeps its shape", () => {
  const line = Array.from({ length: 50 }, (_, i) => [i, (i % 2) * 0.4]);
  assert.equal(simplified(line, 1).length, 2);
  const ring = Array.from({ length: 200 }, (_, i) => [
    50 + 40 * Math.cos((i / 199) * 2 * Math.PI),
    50 + 20 * Math.sin((i / 199) * 2 * Math.PI),
  ]);
  const kept = simplified(ring, 1);
  assert.ok(kept.length > 8 && kept.length < 60, String(kept.length));
  const [whole, part] = [boundsOf(ring), boundsOf(kept)];
  near(whole.width, part.width, 2);
  near(whole.height, part.height, 2);
});

test("a drawn box has its corners where they were drawn, in any direction", () => {
  const place = { sx: 0.2, sy: 0.8, ox: 0, oy: 0 };
  const draft = { tool: "box", points: [[80.25, 90.5], [10, 20]] };
  assert.deepEqual(shapeOf(draft, place, 1), { x: 10, y: 20, width: 70.25, height: 70.5 });
  assert.equal(shapeOf({ tool: "box", points: [[1, 1], [1.5, 50]] }, place, 1), null);
  assert.equal(shapeOf({ tool: "polygon", points: [[1, 1], [90, 1]] }, place, 1), null);
});
