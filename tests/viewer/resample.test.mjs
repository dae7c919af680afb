import assert from "node:assert/strict";
import { test } from "node:test";

import { placeOf } from "../../app/viewer/src/geometry.js";
import { covered, halved, resampled } from "../../app/viewer/src/resample.js";

const pattern = (Kind, rows, columns, samples = 1) =>
  Kind.from({ length: rows * columns * samples }, (_, i) => (i * 7919) % 30011 - (Kind === Int16Array ? 15000 : 0));

test("one to one, the values are untouched", () => {
  for (const [Kind, samples] of [[Uint16Array, 1], [Int16Array, 1], [Float32Array, 1], [Uint8Array, 3]]) {
    const image = { rows: 31, columns: 47, aspect: 1, samples };
    const pixels = pattern(Kind, 31, 47, samples);
    const place = placeOf({ fit: false, scale: 1, cx: 0.5, cy: 0.5 }, image, 100, 80);
    const area = covered(place, image, 100, 80);
    assert.deepEqual([area.width, area.height], [47, 31]);
    assert.deepEqual(resampled(pixels, image, place, area), pixels);
  }
});

test("a part of an image one to one is that part", () => {
  const image = { rows: 300, columns: 400, aspect: 1, samples: 1 };
  const pixels = pattern(Uint16Array, 300, 400);
  const place = { sx: 1, sy: 1, ox: -50, oy: -70 };
  const area = covered(place, image, 100, 60);
  const part = resampled(pixels, image, place, area);
  assert.equal(part[0], pixels[70 * 400 + 50]);
  assert.equal(part[59 * 100 + 99], pixels[129 * 400 + 149]);
});

test("made smaller, each value is the mean over its area, and the mean of all stays", () => {
  const image = { rows: 120, columns: 90, aspect: 1, samples: 1 };
  const pixels = pattern(Float32Array, 120, 90);
  for (const scale of [0.75, 0.5, 1 / 3, 0.1]) {
    const place = { sx: scale, sy: scale, ox: 0, oy: 0 };
    const area = covered(place, image, 1000, 1000);
    const made = resampled(pixels, image, place, area);
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    if (Number.isInteger(90 * scale) && Number.isInteger(120 * scale)) {
      assert.ok(Math.abs(mean(made) - mean(pixels)) < 1, `${scale}: ${mean(made)} ${mean(pixels)}`);
    }
    if (scale === 0.5) {
      assert.equal(made[0], (pixels[0] + pixels[1] + pixels[90] + pixels[91]) / 4);
    }
  }
});

test("halving rounds means of negative values as of others, and keeps a last odd row and column", () => {
  const image = { rows: 3, columns: 3, aspect: 1, samples: 1 };
  const pixels = Int16Array.from([-3, -4, 5, -5, -6, 7, 10, 20, -32768]);
  const half = halved(pixels, image, 0.5);
  assert.deepEqual([half.columns, half.rows, half.factor], [2, 2, 2]);
  assert.deepEqual([...half.values], [-4, 6, 15, -32768]);
  const high = halved(new Uint16Array(9).fill(65535), image, 0.5);
  assert.deepEqual([...high.values], [65535, 65535, 65535, 65535]);
});

test("made larger, values lie between their neighbours and true at the pixels' middles", () => {
  const image = { rows: 2, columns: 2, aspect: 1, samples: 1 };
  const pixels = Int16Array.from([-100, 300, 500, 900]);
  const place = { sx: 5, sy: 5, ox: 0, oy: 0 };
  const area = covered(place, image, 10, 10);
  const made = resampled(pixels, image, place, area);
  assert.deepEqual([made[2 * 10 + 2], made[2 * 10 + 7], made[7 * 10 + 2], made[7 * 10 + 7]], [-100, 300, 500, 900]);
  assert.ok(made.every((value) => value >= -100 && value <= 900));
  assert.equal(made[2 * 10 + 3], -20);
});

test("pixels that are not square are stretched along one axis only", () => {
  const image = { rows: 4, columns: 40, aspect: 4, samples: 1 };
  const place = placeOf({ fit: false, scale: 1, cx: 0.5, cy: 0.5 }, image, 60, 60);
  assert.deepEqual([covered(place, image, 60, 60).width, covered(place, image, 60, 60).height], [40, 16]);
});

test("nothing in sight is nothing", () => {
  const image = { rows: 4, columns: 4, aspect: 1, samples: 1 };
  const place = { sx: 1, sy: 1, ox: 500, oy: 0 };
  assert.equal(resampled(new Uint16Array(16), image, place, covered(place, image, 60, 60)).length, 0);
});
