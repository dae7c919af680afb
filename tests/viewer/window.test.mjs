import assert from "node:assert/strict";
import { test } from "node:test";

import { chosenWindow, dragged, fullRange, grey, lookupTable, presetsOf, windowed } from "../../app/viewer/src/window.js";

test("the edges of LINEAR are those of the standard", () => {
  const win = { center: 2048, width: 4096, fn: "LINEAR" };
  assert.equal(windowed(0, win), 0);
  assert.equal(windowed(4095, win), 1);
  assert.equal(windowed(2047.5, win), 0.5);
});

test("a width of one is a threshold", () => {
  const win = { center: 10, width: 1, fn: "LINEAR" };
  assert.deepEqual([9, 9.5, 10].map((value) => windowed(value, win)), [0, 0, 1]);
});

test("the table holds what the function says, for both readings of the bits", () => {
  for (const signed of [false, true]) {
    for (const invert of [false, true]) {
      const win = { center: -100.5, width: 1201, fn: signed ? "SIGMOID" : "LINEAR" };
      const table = lookupTable(win, invert, signed);
      for (let pattern = 0; pattern < 65536; pattern += 7) {
        const value = signed ? new Int16Array([pattern])[0] : pattern;
        const level = grey(value, win, invert);
        assert.equal(table[pattern], (0xff000000 + level * 0x10101) >>> 0);
      }
    }
  }
});

test("no value is black", () => {
  for (const fn of ["LINEAR", "LINEAR_EXACT", "SIGMOID"]) {
    assert.equal(grey(NaN, { center: 0, width: 10, fn }, true), 0);
  }
});

test("a drag changes width across and center down, and never the width below its least", () => {
  const start = { center: 40, width: 400, fn: "LINEAR" };
  assert.deepEqual(dragged(start, 30, -15, true), { center: 20, width: 440, fn: "LINEAR" });
  assert.equal(dragged(start, -1e4, 0, true).width, 1);
  assert.ok(dragged({ ...start, fn: "SIGMOID" }, -1e4, 0, false).width > 0);
});

test("CT windows are offered for Hounsfield units only, after the file's", () => {
  const header = { windows: [{ label: "", center: 1, width: 2, function: "SIGMOID" }], unit: "" };
  const say = (key, values) => key + (values ? values.number : "");
  assert.deepEqual(presetsOf(header, say).map((one) => one.label), ["preset_file1"]);
  const offers = presetsOf({ ...header, unit: "HU" }, say);
  assert.equal(offers.length, 5);
  assert.deepEqual(chosenWindow(header, offers[0]), { center: 1, width: 2, fn: "SIGMOID" });
  assert.deepEqual(offers[1].win, { center: -600, width: 1500, fn: "LINEAR" });
});

test("the full range shows the least value black and the greatest white", () => {
  const win = fullRange(-5, 15);
  assert.deepEqual([-5, 15].map((value) => grey(value, win, false)), [0, 255]);
});

test("without a window of the file the desk's proposal comes first, then all values", () => {
  const header = { windows: [], window: { center: 5, width: 8, function: "LINEAR_EXACT" }, minimum: 0, maximum: 90, unit: "" };
  assert.deepEqual(chosenWindow(header, null), { center: 5, width: 8, fn: "LINEAR_EXACT" });
  const offers = presetsOf(header, (key) => key);
  assert.deepEqual(offers.map((one) => one.label), ["preset_start", "preset_full"]);
  assert.deepEqual(offers.map((one) => chosenWindow(header, one).width), [8, 90]);
});

test("padding is black whichever way the image is shown", () => {
  for (const invert of [false, true]) {
    const table = lookupTable({ center: 0, width: 100, fn: "LINEAR" }, invert, true, -32768);
    assert.equal(table[0x8000], 0xff000000);
    assert.equal(table[0x8001], invert ? 0xffffffff : 0xff000000);
  }
});
