import { createHotset, type HotsetError, search } from "@hotset/core";
import { describe, expect, it } from "vitest";
import { Arena } from "../dist/arena.js";
import { wasm } from "../dist/node.js";

const page = 65536;
const MiB = 1 << 20;
const codeOf = (error: unknown) => (error as HotsetError | undefined)?.code;

function thrown(work: () => unknown): HotsetError {
  try {
    work();
  } catch (error) {
    return error as HotsetError;
  }
  throw new Error("nothing was thrown");
}

describe("the arena", () => {
  const make = (pages: number, most = pages): Arena =>
    new Arena(new WebAssembly.Memory({ initial: pages, maximum: most, shared: true }), most * page);

  it("hands out 64-byte lines, first fit, and never address 0", () => {
    const arena = make(1);
    const [a, b, c] = [arena.alloc(1, false), arena.alloc(65, false), arena.alloc(0, false)];
    expect([a, b, c].map((start) => start % 64)).toEqual([0, 0, 0]);
    expect([b - a, c - b]).toEqual([64, 128]);
    expect(a).toBeGreaterThan(2048);
    arena.free(a);
    arena.free(b);
    expect(arena.alloc(192, false)).toBe(a);
    expect(arena.alloc(64, false)).toBe(c + 64);
  });

  it("joins neighbours that are free, in any order of freeing, into one piece of all there is", () => {
    const arena = make(1);
    const all = page - arena.alloc(64, false);
    const blocks = Array.from({ length: all / 64 - 1 }, () => arena.alloc(64, false));
    expect(thrown(() => arena.alloc(1, false)).message).toMatch(/expected 1 bytes in one piece but received 0 free of 65536\. Dispose/);
    const order = blocks.map((start, i) => ({ start, key: (i * 7919) % blocks.length })).sort((x, y) => x.key - y.key);
    for (const { start } of order) arena.free(start);
    const first = arena.alloc(all - 64, false);
    expect(first).toBe(blocks[0]);
    arena.free(first);
    expect(() => arena.free(first)).toThrow(/not in use/);
  });

  it("keeps a block until the last that holds it lets go", () => {
    const arena = make(1);
    const start = arena.alloc(256, false);
    expect(arena.hold(start + 200)).toBe(start);
    arena.free(start);
    expect([arena.inUse(start + 255), arena.inUse(start + 256)]).toEqual([true, false]);
    expect(arena.hold(start + 256)).toBeUndefined();
    arena.free(start);
    expect(arena.inUse(start)).toBe(false);
    expect(() => arena.free(start)).toThrow(/not in use/);
  });

  it("zeroes memory that was used before, where that is asked for", () => {
    const arena = make(1, 8);
    const bytes = (start: number, length: number) => new Uint8Array(arena.memory.buffer, start, length);
    const first = arena.alloc(1000, false);
    bytes(first, 1000).fill(7);
    arena.free(first);
    expect(bytes(arena.alloc(3 * page, true), 3 * page).every((byte) => byte === 0)).toBe(true);
  });

  it("grows to its limit, and knows views of every buffer it had", () => {
    const arena = make(1, 4);
    const early = new Uint8Array(arena.memory.buffer, arena.alloc(100, true), 100);
    const start = arena.alloc(2 * page, true);
    const late = new Uint8Array(arena.memory.buffer, start, 2 * page);
    early[5] = 9;
    expect([arena.owns(early), arena.owns(late), arena.owns(new Uint8Array(4))]).toEqual([true, true, false]);
    expect(new Uint8Array(arena.memory.buffer)[early.byteOffset + 5]).toBe(9);
    expect(codeOf(thrown(() => arena.alloc(4 * page, false)))).toBe("memory");
    arena.free(start);
    expect(arena.alloc(3 * page, false)).toBe(start);
    expect(arena.memory.buffer.byteLength).toBe(4 * page);
  });
});

const axes = { batch: 2, count: 1000, dim: 32, k: 4 };
const rows = Float32Array.from({ length: axes.count * axes.dim }, (_, i) => Math.sin(i * 0.71));
const inputs = () => ({ queries: rows.slice(320, 384), rows });
const small = async (settings = {}) => createHotset({ backends: [await wasm({ threads: 2, memory: MiB, ...settings })] });
const named = { backend: "wasm" };

describe("the memory setting", () => {
  it("is a whole number of bytes, 1 MiB to 4 GiB", async () => {
    for (const memory of [0, -1, MiB - 1, MiB + 0.5, 2 ** 32 + 1, Number.NaN, "1" as unknown as number])
      await expect(wasm({ memory })).rejects.toThrow(/wasm: memory: expected 1048576 to 4294967296 bytes but received/);
  });

  it("bounds what a plan may take: a larger one is refused with the reason, and goes elsewhere by itself", async () => {
    const hotset = await small();
    const large = { batch: 1, count: 10_000, dim: 64, k: 4 };
    const reason = /its tensors and scratch take 2\.\d MiB, more than wasm memory holds \(1\.0 MiB\)/;
    expect(() => hotset.planSync(search.scan, large, { rows: "f32" }, named)).toThrow(reason);
    const plan = hotset.planSync(search.scan, large, { rows: "f32" });
    expect(plan.backend).toBe("js");
    expect(plan.candidates.find(({ backend }) => backend === "wasm")?.reason).toMatch(reason);
  });

  it.each([true, false])("bounds what is allocated, and all of it can be used again (shared: %s)", async (shared) => {
    const hotset = await small({ shared });
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, named);
    const fill = () => {
      const tensors: { dispose(): void }[] = [];
      const error = thrown(() => {
        for (;;) tensors.push(plan.alloc("rows"));
      });
      expect([error.code, error.message]).toEqual(["memory", expect.stringMatching(/wasm memory: expected 128000 bytes.* Dispose/)]);
      return tensors;
    };
    const tensors = fill();
    expect(codeOf(thrown(() => plan.bind(inputs())))).toBe("memory");
    const auto = hotset.planSync(search.scan, axes, { rows: "f32" }, { resident: ["rows", "queries"] });
    const step = auto.bind(inputs());
    if (auto.backend === "js") expect(auto.why).toMatch(/^fell back from wasm \(wasm memory: expected/);
    expect(step.run().ids[0]).toBe(10);
    for (const tensor of tensors) tensor.dispose();
    const again = fill();
    expect(again.length).toBe(tensors.length);
    for (const tensor of again) tensor.dispose();
    expect(plan.bind(inputs()).run().ids[0]).toBe(10);
  });

  it("is given back by steps, asynchronous runs and one-call forms, however many there are", async () => {
    const hotset = await small();
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, named);
    for (let i = 0; i < 300; i++) {
      const step = plan.bind(inputs());
      expect(step.run().ids[0]).toBe(10);
      if (i % 3 === 0) expect((await step.runAsync()).ids[4]).toBe(11);
      const running = i % 5 === 0 ? step.runAsync() : undefined;
      step.dispose();
      expect(codeOf(await running?.catch((error) => error)) ?? "disposed").toBe("disposed");
      const { ids } = await hotset.call(search.scan, { ...inputs(), dim: 32, k: 1 + (i % 4), backend: "wasm" });
      expect(ids[0]).toBe(10);
    }
  });

  it("may be all of 32 bits: addresses are unsigned, to the last", async () => {
    const backend = await wasm({ threads: 3 });
    const hotset = await createHotset({ backends: [backend] });
    const plan = hotset.planSync(search.scan, { ...axes, batch: 13 }, { rows: "f32" }, named);
    const given = { queries: rows.slice(320, 320 + 13 * 32), rows };
    const expected = String(plan.bind(given).run().ids);
    const held: { release(): void }[] = [];
    // From large to small, so that what is left lies at the very end.
    for (let bytes = 2 ** 31; bytes >= MiB / 2; bytes /= 2) {
      try {
        held.push(backend.alloc(bytes));
      } catch (error) {
        expect(codeOf(error)).toBe("memory");
      }
    }
    const step = plan.bind(given);
    expect(String(step.run().ids)).toBe(expected);
    step.dispose();
    held.pop()?.release();
    const other = plan.bind(given);
    expect(String((await other.runAsync()).ids)).toBe(expected);
  });
});

describe("views", () => {
  it("may be parts of larger arrays, at any element", async () => {
    const hotset = await small({ memory: 8 * MiB });
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, named);
    const expected = String(plan.bind(inputs()).run().ids);
    for (const Buffer of [ArrayBuffer, SharedArrayBuffer]) {
      const part = (length: number, shift: number) => new Float32Array(new Buffer(4 * length + 64), 4 * shift, length);
      const outputs = { ids: new Int32Array(new Buffer(100), 12, 8), scores: part(8, 5), found: new Uint32Array(2) };
      const given = { queries: part(64, 3), rows: part(rows.length, 7) };
      given.queries.set(inputs().queries);
      given.rows.set(rows);
      const step = plan.bind(given, outputs);
      expect(String(step.run().ids)).toBe(expected);
      outputs.ids.fill(-7);
      expect(String((await step.runAsync()).ids)).toBe(expected);
      expect(new Int32Array(outputs.ids.buffer).filter((id) => id !== 0).length).toBe(8);
    }
    const tensor = plan.alloc("rows");
    tensor.data.set(rows);
    const half = hotset.planSync(search.scan, { ...axes, count: 500 }, { rows: "f32" }, named);
    const step = half.bind({ ...inputs(), rows: tensor.data.subarray(500 * 32) });
    // The step keeps the memory of a tensor that is disposed of.
    tensor.dispose();
    const other = plan.alloc("rows");
    expect(String(step.run().scores)).toBe(String(half.bind({ ...inputs(), rows: rows.slice(500 * 32) }).run().scores));
    other.dispose();
  });

  it("may be transferred while a run that began goes on: inputs were copied, outputs are refused", async () => {
    const hotset = await small({ memory: 8 * MiB });
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, named);
    const given = { queries: inputs().queries, rows: rows.slice() };
    const step = plan.bind(given);
    const running = step.runAsync();
    structuredClone(given, { transfer: [given.queries.buffer, given.rows.buffer] });
    expect((await running).ids[0]).toBe(10);
    expect(codeOf(await step.runAsync().catch((error) => error))).toBe("detached");
    expect(codeOf(thrown(() => step.run()))).toBe("detached");
    const other = plan.bind(inputs());
    const lost = other.runAsync();
    structuredClone(other.outputs.scores, { transfer: [other.outputs.scores.buffer as ArrayBuffer] });
    expect(codeOf(await lost.catch((error) => error))).toBe("detached");
  });

  it("of memory that was given back are refused", async () => {
    const hotset = await small({ memory: 8 * MiB });
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, named);
    const tensor = plan.alloc("rows");
    const { data } = tensor;
    tensor.dispose();
    expect(thrown(() => plan.bind({ ...inputs(), rows: data })).message).toMatch(/expected tensors of live memory but received a view/);
    const call = hotset.call(search.scan, { ...inputs(), rows: data, dim: 32, k: 4, backend: "wasm" });
    expect(codeOf(await call.catch((error) => error))).toBe("disposed");
  });

  it("keep what lies beyond live axes that are set lower", async () => {
    const hotset = await small({ memory: 8 * MiB });
    const step = hotset
      .planSync(search.scan, { ...axes, batch: 5 }, { rows: "f32" }, named)
      .bind({ ...inputs(), queries: rows.slice(0, 160) });
    const full = [...step.run().ids];
    for (const run of [() => step.run(), () => step.runAsync()]) {
      step.outputs.ids.fill(77);
      step.outputs.scores.fill(77);
      step.set("batch", 2);
      const { ids, scores, found } = await run();
      expect([...ids]).toEqual([...full.slice(0, 8), ...new Array(12).fill(77)]);
      expect([...scores.subarray(8)]).toEqual(new Array(12).fill(77));
      expect(found.length).toBe(5);
      step.set("batch", 5);
      expect([...(await run()).ids]).toEqual(full);
      step.set("count", 1);
      expect([...(await run()).found]).toEqual([1, 1, 1, 1, 1]);
      step.set("count", axes.count);
    }
  });
});
