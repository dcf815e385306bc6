/** attention/decode on a real queue: bad entries, the application's own pass, losses, and the shapes that suites leave out. */
import { attention, createHotset, type Hotset, js } from "@hotset/core";
import type { Op } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { suiteOf } from "@hotset/core/testing/cases";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { refused } from "../../../test/support/refused.js";
import { type WebgpuBackend, type WebgpuSettings, webgpu } from "../dist/index.js";

const axes = { batch: 2, queryHeads: 4, kvHeads: 2, headDim: 8, valueDim: 8, pages: 6, pageSize: 4, maxPages: 3 };
const waves = (length: number, step: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * step));
const given = {
  queries: waves(2 * 4 * 8, 1.1),
  keyPages: waves(6 * 2 * 4 * 8, 1.7),
  valuePages: waves(6 * 2 * 4 * 8, 2.3),
  pageTable: Int32Array.of(5, 0, 3, 1, 4, 2),
  lengths: Int32Array.of(11, 6),
};
const usage = { copySource: 4, copyTarget: 8, storage: 128 };

const reference = async (inputs: typeof given) =>
  (await createHotset({ backends: [js()] })).planSync(attention.decode, axes, { keyPages: "f32" }, { backend: "js" }).bind(inputs);
const close = (got: Float32Array, want: Float32Array) => {
  expect(got.length).toBe(want.length);
  for (const [i, value] of got.entries()) expect(Math.abs(value - (want[i] as number))).toBeLessThan(1e-5);
};

describe.skipIf(without(swiftshader !== undefined))("attention on SwiftShader (needs chromium's vk_swiftshader)", () => {
  let backend: WebgpuBackend;
  let hotset: Hotset;
  const plan = (there = hotset) => there.plan(attention.decode, axes, { keyPages: "f32" }, { backend: "webgpu" });

  beforeAll(async () => {
    backend = await webgpu();
    hotset = await createHotset({ backends: [backend] });
  });
  afterAll(() => hotset.dispose());

  describe("bad entries", () => {
    it("of a queued run come with the wait, the table's first, and count once", async () => {
      const bound = await plan();
      const [pageTable, lengths] = [bound.alloc("pageTable"), bound.alloc("lengths")];
      const rest = { queries: bound.alloc("queries"), keyPages: bound.alloc("keyPages"), valuePages: bound.alloc("valuePages") };
      rest.queries.upload(given.queries);
      rest.keyPages.upload(given.keyPages);
      rest.valuePages.upload(given.valuePages);
      const outputs = { out: bound.alloc("out"), lse: bound.alloc("lse") };
      const step = bound.bind({ ...rest, pageTable, lengths }, outputs);

      pageTable.upload(Int32Array.of(5, 6, -2, 1, 4, 2));
      lengths.upload(Int32Array.of(11, 13));
      step.run();
      // A run that finds nothing in between hides nothing.
      pageTable.upload(given.pageTable);
      lengths.upload(given.lengths);
      step.run();
      pageTable.upload(Int32Array.of(5, 6, -2, 1, 4, 2));
      lengths.upload(Int32Array.of(11, 13));
      expect((await refused(() => step.done())).message).toMatch(
        /pageTable\[1\] to be an index the op can use \(below pages = 6\) but received 6/,
      );
      await step.done();

      pageTable.upload(given.pageTable);
      lengths.upload(Int32Array.of(-3, 13));
      step.run();
      expect((await refused(() => step.done())).message).toMatch(/lengths\[0\] to be .* but received -3/);
      lengths.upload(given.lengths);
      step.run();
      await step.done();
      close(await outputs.out.download(), (await reference(given)).run().out);
      step.dispose();
    });

    it("of a run from the host come with its outputs done", async () => {
      const inputs = { ...given, pageTable: Int32Array.of(5, 0, 3, 1, -1, 2) };
      const want = await reference(inputs);
      const words = await refused(() => want.run());
      const step = (await plan()).bind(inputs);
      const error = await refused(() => step.runAsync());
      expect([error.code, error.message]).toEqual(["index", words.message]);
      close(step.outputs.out, want.outputs.out);
      close(step.outputs.lse, want.outputs.lse);
      inputs.pageTable[4] = 4;
      close((await step.runAsync()).out, (await reference(given)).run().out);
    });

    it("of a run in the application's own pass are told by done, from buffers that nothing can be copied out of", async () => {
      const device = backend.gpuDevice;
      const there = await createHotset({ backends: [await webgpu({ device })] });
      const make = (data: Float32Array | Int32Array) => {
        const buffer = device.createBuffer({ size: data.byteLength, usage: usage.storage | usage.copyTarget });
        device.queue.writeBuffer(buffer, 0, data.buffer as ArrayBuffer);
        return buffer;
      };
      const [out, lse] = [device.createBuffer({ size: 256, usage: usage.storage | usage.copySource }), make(new Float32Array(8))];
      const table = make(Int32Array.of(5, 0, 77, 1, 4, 2));
      const step = (await plan(there)).bind(
        {
          queries: { data: make(given.queries), dtype: "f32" },
          keyPages: { data: make(given.keyPages), dtype: "f32" },
          valuePages: { data: make(given.valuePages), dtype: "f32" },
          pageTable: { data: table, dtype: "i32" },
          lengths: { data: make(given.lengths), dtype: "i32" },
        },
        { out: { data: out, dtype: "f32" }, lse: { data: lse, dtype: "f32" } },
      );
      const staging = device.createBuffer({ size: 256, usage: 1 | usage.copyTarget });
      const record = () => {
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        step.encode(pass);
        pass.end();
        encoder.copyBufferToBuffer(out, 0, staging, 0, 256);
        return encoder.finish();
      };
      device.queue.submit([record()]);
      expect((await refused(() => step.done())).message).toMatch(/pageTable\[2\] .* but received 77/);
      device.queue.writeBuffer(table, 0, given.pageTable.buffer as ArrayBuffer);
      device.queue.submit([record()]);
      await step.done();
      await staging.mapAsync(1);
      close(new Float32Array(staging.getMappedRange().slice(0)), (await reference(given)).run().out);
      there.dispose();
      expect(backend.device.lost).toBeUndefined();
    });
  });

  describe("what goes wrong", () => {
    it("ends its steps with the device's reason; a new device can be made", async () => {
      const doomed = await webgpu();
      const there = await createHotset({ backends: [doomed] });
      const step = (await plan(there)).bind(given);
      await step.runAsync();
      const running = step.runAsync();
      doomed.gpuDevice.destroy();
      expect((await refused(() => running)).message).toMatch(/webgpu to have its device but received one that was lost/);
      expect((await refused(() => step.runAsync())).code).toBe("device");
      expect((await refused(() => step.done())).code).toBe("device");
      expect((await refused(() => plan(there))).message).toMatch(/its device was lost/);
      step.dispose();
      there.dispose();
      const fresh = await createHotset({ backends: [await webgpu()] });
      close((await (await plan(fresh)).bind(given).runAsync()).out, (await reference(given)).run().out);
      fresh.dispose();
    });

    it("says what does not fit, before anything runs", async () => {
      const why = async (more: object) =>
        (await refused(() => hotset.plan(attention.decode, { ...axes, ...more }, { keyPages: "f32" }, { backend: "webgpu" }))).message;
      expect(await why({ pageSize: 2 ** 24, headDim: 4096, maxPages: 1 })).toMatch(/more than one buffer of this device/);
      const merge = () => hotset.plan(attention.merge, { parts: 65536, rows: 65536, valueDim: 65536 }, {}, { backend: "webgpu" });
      expect((await refused(merge)).message).toMatch(/more than one b/);
    });
  });

  describe("other shapes of the same kernels", () => {
    const decode = ops.find(({ id }) => id === "attention/decode") as Op;
    const prefill = ops.find(({ id }) => id === "attention/prefill") as Op;
    /** Cases of the suite, on another backend: those that names pick, each variant in turn. */
    const same = async (settings: WebgpuSettings, names: RegExp, each: number, wanted = decode): Promise<void> => {
      const other = await webgpu(settings);
      const { items, coverage } = await suiteOf(other, { most: Number.POSITIVE_INFINITY });
      const some = items.filter(({ name, op }) => op === wanted && names.test(name)).filter((_, i) => i % each === 0);
      for (const { run } of some) await run();
      expect(some.length).toBeGreaterThan(4);
      expect(coverage.reasons).toEqual(new Map());
      other.dispose();
    };

    it("windows of pages, and few sequences a launch", async () => {
      const small = { tunables: { bindingBytes: 24 << 10 } };
      await same(small, /\| (heads of 20|pages of 3|fewer sequences at run time|a window|pages that do not exist)$/, 7);
      await same(small, /\| (every bias|fewer masked sequences at run time)$/, 9);
    });

    it("the tiles that a GPU gets", async () => {
      const large = { tunables: { threads: 128, queries: 8, columns: 32, results: 16 } };
      await same(
        large,
        /\| (heads of 13|3 query heads, 3 KV heads|8 query heads, 2 KV heads|14 query heads, 2 KV heads|special values)$/,
        7,
      );
    });

    it("values in parts of columns", async () => {
      await same({ tunables: { threads: 16 } }, /\| heads of 100$/, 1);
    });

    it("more query heads of a KV head than a workgroup takes, in batches of sequences", async () => {
      const wide = { ...axes, batch: 5, queryHeads: 20, kvHeads: 1 };
      const inputs = {
        ...given,
        queries: waves(5 * 20 * 8, 0.9),
        pageTable: Int32Array.from({ length: 15 }, (_, i) => (i * 5) % 6),
        lengths: Int32Array.of(12, 0, 5, 1, 9),
        sinks: waves(20, 0.3),
        keyPages: given.keyPages.slice(0, 192),
        valuePages: given.valuePages.slice(0, 192),
      };
      const variant = { keyPages: "f32", sinks: true } as const;
      const want = (await createHotset({ backends: [js()] }))
        .planSync(attention.decode, wide, variant, { backend: "js" })
        .bind(inputs)
        .run();
      // Scratch for two sequences: 256 bytes of notes and 20 rows of 10 words each.
      const narrow = await webgpu({ tunables: { bindingBytes: 3328 } });
      for (const other of [narrow, backend]) {
        const there = await createHotset({ backends: [other] });
        const bound = await there.plan(attention.decode, wide, variant, { backend: "webgpu" });
        const { out, lse } = await bound.bind(inputs).runAsync();
        close(out, want.out);
        close(
          lse.map((value) => (value === Number.NEGATIVE_INFINITY ? -1 : value)),
          want.lse,
        );
      }
      narrow.dispose();
    });

    it("prefill: windows of tokens, windows of pages that go on where the last ended", async () => {
      await same({ tunables: { bindingBytes: 4096 } }, /\| (a prompt without past|a long past|tokens around a tile)$/, 1, prefill);
      await same({ tunables: { bindingBytes: 16 << 10 } }, /\| (everything at once|special values|offsets out of order)$/, 1, prefill);
    });

    it("prefill: the tiles that a GPU gets", async () => {
      const large = { tunables: { threads: 128, queries: 8, columns: 32, results: 16 } };
      await same(large, /\| (heads of 13|7 query heads, 1 KV heads|a prompt without past|special values|everything at once)$/, 2, prefill);
    });

    it("without features", async () => {
      await same({ features: [] }, /\| (heads of (20|64)|5 query heads, 1 KV heads|lengths around a tile)$/, 4);
    });
  });
});
