/** What is peculiar to this backend, on a real queue: residency, the application's own device, its loss, and bad input. */
import { attention, createHotset, type Hotset, type HotsetError, js, search } from "@hotset/core";
import { suiteOf } from "@hotset/core/testing/cases";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { refused } from "../../../test/support/refused.js";
import { type WebgpuBackend, webgpu } from "../dist/index.js";

const axes = { batch: 3, count: 200, dim: 12, k: 5 };
const rows = Float32Array.from({ length: 200 * 12 }, (_, i) => Math.sin(i * 1.7));
const queries = rows.slice(120, 156);
const expected = [10, 11, 12];
const firstOf = (ids: Int32Array): number[] => [...ids].filter((_, i) => i % 5 === 0);
const usage = { copySource: 4, copyTarget: 8, storage: 128 };

describe.skipIf(without(swiftshader !== undefined))("webgpu on SwiftShader (needs chromium's vk_swiftshader)", () => {
  let backend: WebgpuBackend;
  let hotset: Hotset;
  const plan = (more: object = {}) => hotset.plan(search.scan, { ...axes, ...more }, { rows: "f32" }, { backend: "webgpu" });

  beforeAll(async () => {
    backend = await webgpu();
    hotset = await createHotset({ backends: [backend] });
  });
  afterAll(() => hotset.dispose());

  describe("selection", () => {
    it("leaves a software adapter to those who name it", async () => {
      const chosen = await hotset.plan(search.scan, axes, { rows: "f32" });
      expect(chosen.backend).toBe("js");
      const reason = chosen.candidates.find((candidate) => candidate.backend === "webgpu")?.reason;
      expect(reason).toMatch(/drawn by the CPU: auto never picks it; \{ backend: "webgpu" \} does/);
      expect((await plan()).backend).toBe("webgpu");
      const error = await refused(() => hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "webgpu" }));
      expect(error.message).toMatch(/which compiles them first. Use await plan/);
    });

    it("says what it cannot run, and how large a buffer may be", async () => {
      const huge = hotset.explain(search.scan, { batch: 1, count: 2 ** 31 - 1, dim: 65536, k: 1024 }, { rows: "f32" });
      expect(huge.find(({ backend: id }) => id === "webgpu")?.kernel).toBeUndefined();
      const error = await refused(() => plan({ count: 2 ** 31 - 1, dim: 65536, k: 1024 }));
      expect(error.message).toMatch(/rows takes 562949953159168 bytes, more than one buffer of this device/);
      expect((await refused(() => backend.alloc(2 ** 50))).code).toBe("memory");
      expect((await refused(() => hotset.alloc("f32", [2 ** 31 - 1, 65536], "webgpu"))).code).toBe("memory");
    });
  });

  it("holds back the runs of a batch until its end, a wait, an upload, or a size that changes", async () => {
    const made = await plan();
    const resident = () => ({ queries: made.alloc("queries").upload(queries), rows: made.alloc("rows").upload(rows) });
    const found = async (change: (step: ReturnType<typeof made.bind>, tensors: ReturnType<typeof resident>) => void) => {
      const tensors = resident();
      const outputs = { scores: made.alloc("scores"), ids: made.alloc("ids"), found: made.alloc("found") };
      const step = made.bind(tensors, outputs);
      const batch = backend.batch();
      step.run();
      change(step, tensors);
      batch.end();
      batch.end();
      const ids = firstOf(await outputs.ids.download());
      step.dispose();
      for (const tensor of [...Object.values(tensors), ...Object.values(outputs)]) tensor.dispose();
      return ids;
    };
    expect(await found(() => {})).toEqual(expected);
    // What is uploaded, set or given back later does not reach the run before it.
    expect(await found((_, tensors) => tensors.queries.upload(rows.slice(0, 36)))).toEqual(expected);
    expect(await found((step) => step.set("count", 5))).toEqual(expected);
    expect(await found((step) => step.dispose())).toEqual(expected);
    expect(await found((_, tensors) => tensors.rows.dispose())).toEqual(expected);
    expect(await found((step) => step.set("count", 12).run())).toEqual([10, 11, expect.any(Number)]);
  });

  describe("one-call form", () => {
    it("takes host arrays, and returns them", async () => {
      const result = await hotset.call(search.scan, { queries, rows, dim: 12, k: 5, backend: "webgpu" });
      expect([result.backend, firstOf(result.ids)]).toEqual(["webgpu", expected]);
      const ids = new Int32Array(15);
      const again = await hotset.call(search.scan, { queries, rows, dim: 12, k: 5, ids, backend: "webgpu" });
      expect(again.ids).toBe(ids);
      expect(firstOf(ids)).toEqual(expected);
    });

    it("runs where a resident tensor lies", async () => {
      const tensor = hotset.alloc("f32", [200, 12], "webgpu").upload(rows);
      const results = await Promise.all(
        Array.from({ length: 8 }, () => hotset.call(search.scan, { queries, rows: tensor, dim: 12, k: 5 })),
      );
      for (const { ids, backend: where } of results) expect([where, firstOf(ids)]).toEqual(["webgpu", expected]);
      tensor.dispose();
    });
  });

  describe("resident tensors", () => {
    it("go up once, and come back when they are asked for", async () => {
      const bound = await plan();
      const [q, r, ids] = [bound.alloc("queries").upload(queries), bound.alloc("rows").upload(rows), bound.alloc("ids")];
      const rest = { scores: bound.alloc("scores"), found: bound.alloc("found") };
      const step = bound.bind({ queries: q, rows: r }, { ids, ...rest });
      const outputs = step.run();
      await step.done();
      expect(firstOf(await ids.download())).toEqual(expected);
      q.upload(rows.slice(0, 36));
      step.run();
      expect(firstOf(await ids.download())).toEqual([0, 1, 2]);
      step.set("batch", 1).run();
      expect([...(await rest.found.download())]).toEqual([5, 5, 5]);
      expect(await step.time()).toBeGreaterThan(0);
      expect((await refused(() => ids.data)).message).toMatch(/expected a tensor in host memory .* Use upload\(array\) and await download/);
      expect((await refused(() => outputs.ids)).message).toMatch(/one that stays on webgpu/);
      expect((await refused(() => ids.upload(new Int32Array(3)))).message).toMatch(/Int32Array\(15\) for i32 \[3, 5\]/);
      step.dispose();
      for (const tensor of [q, r, ids, rest.scores, rest.found]) tensor.dispose();
      expect((await refused(() => ids.download())).code).toBe("disposed");
    });

    it("are needed by run, which says so; runAsync takes either", async () => {
      const bound = await plan();
      const step = bound.bind({ queries, rows });
      const error = await refused(() => step.run());
      expect(error.message).toMatch(/every tensor to lie on webgpu but received queries, rows, ids, scores, found on the host.*runAsync/);
      expect(firstOf((await step.runAsync()).ids)).toEqual(expected);
      expect((await refused(() => step.encode({}))).message).toMatch(/on the host/);
    });

    it("cannot be told to a plan on the CPU, or to another device", async () => {
      const tensor = hotset.alloc("f32", [200, 12], "webgpu");
      const onJs = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "js" });
      expect((await refused(() => onJs.bind({ queries, rows: tensor }))).message).toMatch(/rows on the host, as the plan runs on js/);
      const other = await webgpu();
      const elsewhere = await createHotset({ backends: [other] });
      const there = await elsewhere.plan(search.scan, axes, { rows: "f32" }, { backend: "webgpu" });
      expect((await refused(() => there.bind({ queries, rows: tensor }))).message).toMatch(/received a tensor on another device/);
      elsewhere.dispose();
      tensor.dispose();
    });

    it("outlive the detaching of what was uploaded", async () => {
      const bound = await plan();
      const [given, own] = [rows.slice(), queries.slice()];
      const step = bound.bind({ queries: own, rows: given });
      const running = step.runAsync();
      structuredClone(given, { transfer: [given.buffer] });
      expect((await refused(() => step.run())).code).toBe("busy");
      expect(firstOf((await running).ids)).toEqual(expected);
      expect((await refused(() => step.runAsync())).code).toBe("detached");
    });
  });

  describe("the application's own device", () => {
    it("is used with its buffers as they are, inside its own pass, and left alive", async () => {
      const device = backend.gpuDevice;
      const own = await webgpu({ device });
      const there = await createHotset({ backends: [own] });
      const bound = await there.plan(search.scan, axes, { rows: "f32" }, { backend: "webgpu" });
      const buffer = (bytes: number) => device.createBuffer({ size: bytes, usage: usage.storage | usage.copySource | usage.copyTarget });
      // Queries lie in the middle of a buffer that holds more.
      const [q, r, ids, scores, found] = [buffer(1024), buffer(rows.byteLength), buffer(60), buffer(60), buffer(12)];
      device.queue.writeBuffer(q, 256, queries);
      device.queue.writeBuffer(r, 0, rows);
      const step = bound.bind(
        { queries: { data: q, dtype: "f32", offset: 256 }, rows: { data: r, dtype: "f32" } },
        { ids: { data: ids, dtype: "i32" }, scores: { data: scores, dtype: "f32" }, found: { data: found, dtype: "u32" } },
      );
      const staging = device.createBuffer({ size: 60, usage: 1 | usage.copyTarget });
      for (const how of ["pass", "encoder"]) {
        const encoder = device.createCommandEncoder();
        encoder.clearBuffer(ids);
        if (how === "encoder") step.encode(encoder);
        else {
          const pass = encoder.beginComputePass();
          step.encode(pass);
          pass.end();
        }
        encoder.copyBufferToBuffer(ids, 0, staging, 0, 60);
        device.queue.submit([encoder.finish()]);
        await staging.mapAsync(1);
        expect(firstOf(new Int32Array(staging.getMappedRange().slice(0)))).toEqual(expected);
        staging.unmap();
      }
      expect((await refused(() => step.encode({}))).message).toMatch(
        /a GPUComputePassEncoder or a GPUCommandEncoder but received a Object/,
      );

      const bind = (queriesGiven: object) => () => bound.bind({ queries: queriesGiven as never, rows });
      expect((await refused(bind({ data: q, dtype: "f32", offset: 100 }))).message).toMatch(/from byte 100, which is no multiple of 256/);
      expect((await refused(bind({ data: q, dtype: "f32", offset: 1024 }))).code).toBe("shape");
      expect((await refused(bind({ data: q, dtype: "f32", offset: -256 }))).message).toMatch(/offset of queries/);
      expect((await refused(bind({ data: staging, dtype: "f32", shape: [3, 12] }))).code).toBe("shape");
      expect((await refused(bind({ data: q, dtype: "i8" }))).code).toBe("dtype");
      const unusable = device.createBuffer({ size: 1024, usage: usage.copyTarget });
      expect((await refused(bind({ data: unusable, dtype: "f32" }))).message).toMatch(/without GPUBufferUsage.STORAGE/);
      expect((await refused(bind({ data: { pointer: 4096n, bytes: 1024 }, dtype: "f32" }))).message).toMatch(/a CUDA pointer/);
      const twice = () => bound.bind({ queries: { data: q, dtype: "f32" }, rows }, { ids: { data: q, dtype: "i32" } });
      expect((await refused(twice)).message).toMatch(/ids, which is written, to share no memory with queries/);

      there.dispose();
      expect(own.device.lost).toMatch(/disposed/);
      expect(firstOf((await hotset.call(search.scan, { queries, rows, dim: 12, k: 5, backend: "webgpu" })).ids)).toEqual(expected);
    });
  });

  describe("what goes wrong", () => {
    it("ends plans, steps and tensors with the device's reason; a new device can be made", async () => {
      const doomed = await webgpu();
      const there = await createHotset({ backends: [doomed] });
      const bound = await there.plan(search.scan, axes, { rows: "f32" }, { backend: "webgpu" });
      const tensor = bound.alloc("rows").upload(rows);
      const step = bound.bind({ queries, rows: tensor });
      const running = step.runAsync();
      doomed.gpuDevice.destroy();
      expect((await refused(() => running)).message).toMatch(
        /webgpu to have its device but received one that was lost: .*Load the backend again/,
      );
      expect(doomed.device.lost).toBeTypeOf("string");
      for (const work of [
        () => step.runAsync(),
        () => step.done(),
        () => bound.bind({ queries, rows }),
        () => bound.alloc("rows"),
        () => tensor.upload(rows),
        () => tensor.download(),
      ])
        expect((await refused(work)).code).toBe("device");
      const error = await refused(() => there.plan(search.scan, axes, { rows: "f32" }, { backend: "webgpu" }));
      expect(error.message).toMatch(/its device was lost/);
      expect(firstOf((await there.call(search.scan, { queries, rows, dim: 12, k: 5 })).ids)).toEqual(expected);
      step.dispose();
      there.dispose();

      const fresh = await createHotset({ backends: [await webgpu()] });
      expect(firstOf((await fresh.call(search.scan, { queries, rows, dim: 12, k: 5, backend: "webgpu" })).ids)).toEqual(expected);
      fresh.dispose();
    });

    it("rejects the run whose buffer was destroyed, and no other", async () => {
      const bound = await plan();
      const given = backend.gpuDevice.createBuffer({ size: rows.byteLength, usage: usage.storage | usage.copyTarget });
      const step = bound.bind({ queries, rows: { data: given, dtype: "f32" } });
      await step.runAsync();
      given.destroy();
      expect((await refused(() => step.runAsync())).message).toMatch(/[Dd]estroyed/);
      expect(firstOf((await bound.bind({ queries, rows }).runAsync()).ids)).toEqual(expected);
    });

    it("survives running out of memory", async () => {
      const held: ReturnType<WebgpuBackend["alloc"]>[] = [];
      let error: HotsetError | undefined;
      while (!error && held.length < 64) {
        const memory = backend.alloc(backend.gpuDevice.limits.maxBufferSize);
        held.push(memory);
        error = await memory.read(new Uint8Array(16)).then(
          () => undefined,
          (reason: HotsetError) => reason,
        );
      }
      expect([error?.code, error?.where]).toEqual(["memory", "webgpu memory"]);
      // A cache as large as what was just refused, and a step over it.
      const pages = Math.floor(backend.gpuDevice.limits.maxBufferSize / 4 / 4096);
      const cache = { batch: 1, queryHeads: 1, kvHeads: 1, headDim: 4096, valueDim: 1, pages, pageSize: 1, maxPages: 1 };
      const bound = await hotset.plan(attention.decode, cache, { keyPages: "f32" }, { backend: "webgpu" });
      const keyPages = bound.alloc("keyPages");
      const small = (["queries", "valuePages", "pageTable", "lengths"] as const).map((name) => [name, bound.alloc(name)] as const);
      const step = bound.bind({ ...Object.fromEntries(small), keyPages } as never, { out: bound.alloc("out"), lse: bound.alloc("lse") });
      step.run();
      expect((await refused(() => step.done())).code).toBe("memory");
      step.dispose();
      keyPages.dispose();
      for (const [, tensor] of small) tensor.dispose();
      for (const memory of held) memory.release();
      expect(firstOf((await hotset.call(search.scan, { queries, rows, dim: 12, k: 5, backend: "webgpu" })).ids)).toEqual(expected);
    });
  });

  describe("other shapes of the same kernel", () => {
    const js12 = createHotset({ backends: [js()] });
    const same = async (other: WebgpuBackend, more: { count: number; batch: number; dim: number; k: number }) => {
      const there = await createHotset({ backends: [other] });
      // Whole numbers: sums are exact, so that even ids must agree with the reference.
      const whole = (length: number, step: number) => Float32Array.from({ length }, (_, i) => ((i * step) % 17) - 8);
      const given = { queries: whole(more.batch * more.dim, 5), rows: whole(more.count * more.dim, 7), ...more, metric: "ip" as const };
      const want = await (await js12).call(search.scan, given);
      const got = await there.call(search.scan, { ...given, backend: "webgpu" });
      expect([...got.ids]).toEqual([...want.ids]);
      expect([...got.scores]).toEqual([...want.scores]);
      expect([...got.found]).toEqual([...want.found]);
      there.dispose();
    };

    it("windows of rows and of queries, and lists merged in two levels", async () => {
      await same(await webgpu({ tunables: { bindingBytes: 64 << 10 } }), { batch: 200, count: 3000, dim: 13, k: 20 });
      await same(await webgpu(), { batch: 2, count: 40_000, dim: 2, k: 1024 });
    });

    it("the tiles that a GPU gets", async () => {
      await same(await webgpu({ tunables: { threads: 128, queries: 8, columns: 32, results: 16 } }), {
        batch: 11,
        count: 700,
        dim: 40,
        k: 12,
      });
    });

    it("without subgroups: a spread of the conformance cases", async () => {
      const plain = await webgpu({ features: [] });
      expect(plain.features).toEqual([]);
      const { items } = await suiteOf(plain, { most: Number.POSITIVE_INFINITY });
      const some = items.filter(({ op }) => op.id === "search/scan").filter((_, i) => i % 30 === 0);
      for (const { run } of some) await run();
      expect(some.length).toBeGreaterThan(10);
      plain.dispose();
    });
  });
});
