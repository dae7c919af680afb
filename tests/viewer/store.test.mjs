import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Outbox } from "../../app/viewer/src/outbox.js";
import { Stack, around } from "../../app/viewer/src/stack.js";
import { Kept, PixelStore } from "../../app/viewer/src/store.js";

const HEADER = { rows: 2, columns: 3, dtype: "int16", samples: 1, pixel_aspect: 1, windows: [] };
const settle = () => new Promise((done) => setTimeout(done, 5));

/** A server that answers from a function of the path, and notes what it was asked. */
function served(answer = () => null) {
  const asked = [];
  const fetcher = async (path, { headers }) => {
    asked.push([path, headers.Authorization]);
    await null;
    const status = answer(path, headers);
    if (status === "down") throw new TypeError("no network");
    if (status) return { ok: false, status };
    return {
      ok: true,
      status: 200,
      json: async () => ({ ...HEADER }),
      arrayBuffer: async () => new Int16Array([1, -2, 3, 4, 5, 6]).buffer,
    };
  };
  const store = new PixelStore({ fetcher, atOnce: 2 });
  store.setAccess("/desk/", "t");
  return { store, asked };
}

test("what is longest unused goes first", () => {
  const kept = new Kept(100);
  const entry = (bytes) => ({ byteLength: bytes });
  kept.set("a", entry(40));
  kept.set("b", entry(40));
  kept.get("a");
  kept.set("c", entry(40));
  assert.deepEqual([...kept.held.keys()], ["a", "c"]);
  assert.equal(kept.bytes, 80);
  kept.set("huge", entry(500));
  assert.deepEqual([...kept.held.keys()], ["huge"]);
});

test("pixels come with the token in a header, and are asked for once", async () => {
  const { store, asked } = served();
  store.want("pane", [["x", 0]]);
  store.want("pane", [["x", 0]]);
  await settle();
  assert.deepEqual([...store.pixels("x", 0)], [1, -2, 3, 4, 5, 6]);
  assert.deepEqual(asked.map(([path]) => path).sort(), ["/desk/images/x", "/desk/images/x/frames/0"]);
  assert.ok(asked.every(([path, token]) => token === "Bearer t" && !path.includes("Bearer")));
  store.want("pane", [["x", 0]]);
  await settle();
  assert.equal(asked.length, 2);
});

test("frames of an image ask for its header once", async () => {
  const { store, asked } = served();
  store.want("pane", [["x", 0], ["x", 1], ["x", 2]]);
  await settle();
  await settle();
  assert.equal(asked.filter(([path]) => path === "/desk/images/x").length, 1);
  assert.equal(asked.length, 4);
});

test("refusals have names, and another try is given when asked for, or by a new token", async () => {
  const codes = { 401: "error_session", 403: "error_session", 404: "error_missing", 500: "error_server", down: "error_network" };
  for (const [status, code] of Object.entries(codes)) {
    let fails = true;
    const { store } = served(() => fails && (Number(status) || status));
    store.want("pane", [["x", 0]]);
    await settle();
    assert.equal(store.failure("x", 0), code);
    fails = false;
    store.setAccess("/desk/", "new");
    if (code !== "error_session") {
      assert.equal(store.failure("x", 0), code);
      store.forgive();
    }
    await settle();
    assert.ok(store.pixels("x", 0));
  }
});

test("an image that came short is refused rather than shown", async () => {
  const { store } = served();
  HEADER.rows = 3;
  store.want("pane", [["x", 0]]);
  await settle();
  HEADER.rows = 2;
  assert.equal(store.failure("x", 0), "error_unreadable");
});

test("what nobody wants any more is not fetched", async () => {
  const { store, asked } = served();
  store.want("pane", Array.from({ length: 50 }, (_, frame) => [`i${frame}`, 0]));
  store.want("pane", [["last", 0]]);
  await settle();
  assert.ok(asked.length <= 10, String(asked.length));
  assert.ok(store.pixels("last", 0));
});

test("places are fetched the nearest first, more ahead than behind", () => {
  assert.deepEqual(around(10, 100, 1, 6), [11, 12, 9, 13, 14, 8]);
  assert.deepEqual(around(0, 4, 1, 9), [1, 2, 3]);
  assert.deepEqual(around(3, 4, 1, 9), [2, 1, 0]);
  assert.deepEqual(around(2, 5, -1, 9), [1, 0, 3, 4]);
  assert.deepEqual(around(0, 1, 1, 9), []);
});

test("a stack counts the frames of its images", () => {
  const images = [{ id: "a" }, { id: "b", frames: 3 }, { id: "c" }];
  const stack = new Stack({ key: "s", label: "", images });
  assert.equal(stack.length, 5);
  assert.deepEqual([0, 1, 3, 4, 9].map((slot) => [stack.at(slot).image.id, stack.at(slot).frame]), [
    ["a", 0], ["b", 0], ["b", 2], ["c", 0], ["c", 0],
  ]);
  assert.deepEqual([["a", 0], ["b", 2], ["c", 0], ["none", 0]].map((one) => stack.slotOf(...one)), [0, 3, 4, -1]);
});

test("linked stacks meet at the same part of the way, or at the same position", () => {
  const of = (count, position) =>
    new Stack({ key: "", label: "", images: Array.from({ length: count }, (_, i) => ({ id: String(i), ...position(i) })) });
  const plain = [of(300, () => ({})), of(150, () => ({}))];
  assert.deepEqual([0, 150, 299].map((slot) => plain[0].alike(slot, plain[1])), [0, 75, 149]);
  const placed = [of(100, (i) => ({ position: -50 + i })), of(40, (i) => ({ position: 10 - 2 * i }))];
  assert.equal(placed[1].at(placed[0].alike(40, placed[1])).image.position, -10);
});

test("an event is sent until it is taken, and only then the one after it", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const sent = [];
  const box = new Outbox();
  box.send = (waiting) => sent.push(waiting.map((one) => one.code));
  const first = box.post("error", { code: 1 });
  const second = box.post("error", { code: 2 });
  assert.deepEqual(sent, [[1]]);
  mock.timers.tick(6100);
  assert.deepEqual(sent, [[1], [1]]);
  box.taken([]);
  box.taken([first]);
  mock.timers.tick(500);
  assert.deepEqual(sent, [[1], [1], [2]]);
  box.taken([first, second]);
  mock.timers.tick(100000);
  assert.equal(sent.length, 3);
  assert.ok(box.empty);
  mock.timers.reset();
});
