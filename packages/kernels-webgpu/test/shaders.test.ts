/** Every shader on Dawn's null device: it computes nothing, but compiles WGSL with f16 and subgroups, and holds to the limits. */
import { existsSync } from "node:fs";
import { type AnyAxes, variantKey, variants } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { afterAll, describe, expect, it } from "vitest";
import { create } from "webgpu";
import { compose } from "../dist/compose.js";
import { kernels, webgpu } from "../dist/index.js";
import type { Program, ProgramOf } from "../dist/program.js";

const gpu = create(["backend=null"]) as unknown as GPU;
const all = await webgpu({ gpu });
const none = await webgpu({ gpu, features: [] });
afterAll(() => {
  all.dispose();
  none.dispose();
});

const cache = { batch: 2, kvHeads: 2, pages: 500, pageSize: 16, maxPages: 100 };
/** One of each tile, and of each way to load rows. */
const steps: readonly AnyAxes[] = [
  ...[2, 4, 8, 16, 64].map((queryHeads) => ({ ...cache, queryHeads, headDim: 128, valueDim: 128 })),
  { ...cache, queryHeads: 8, headDim: 13, valueDim: 64 },
  { ...cache, queryHeads: 8, headDim: 64, valueDim: 31 },
  { ...cache, queryHeads: 2, headDim: 4095, valueDim: 4095 },
];
const masked: readonly AnyAxes[] = steps.map((axes) => ({ ...axes, maskHeads: 1 }));
const shapes: Readonly<Record<string, readonly AnyAxes[]>> = {
  "search/scan": [
    { k: 10, batch: 1, count: 5000, dim: 96 },
    { k: 100, batch: 100, count: 5000, dim: 96 },
    { k: 1024, batch: 3, count: 5000, dim: 96 },
  ],
  "kv-cache/append": [{ tokens: 9, kvHeads: 2, headDim: 33, valueDim: 64, pages: 50, pageSize: 16 }],
  "kv-cache/compact": [{ batch: 2, kvHeads: 2, headDim: 33, valueDim: 64, pages: 50, pageSize: 16, maxPages: 9, maxKept: 80 }],
  "model/embedding": [{ tokens: 9, vocab: 50, dim: 96 }],
  "model/linear": [
    { tokens: 64, inDim: 96, outDim: 50 },
    { tokens: 64, inDim: 4097, outDim: 50 },
  ],
  "model/rms-norm": [96, 97].map((dim) => ({ tokens: 9, dim })),
  "model/swiglu": [{ tokens: 9, dim: 97 }],
  "logits/logprob": [0, 10, 1024].map((k) => ({ tokens: 5, vocab: 32000, k })),
  "moe/align": [{ tokens: 9, topK: 2, experts: 8, blockSize: 8, capacity: 74 }],
  "moe/combine": [{ tokens: 7, topK: 4, dim: 300 }],
  "moe/grouped-ffn": [{ tokens: 9, topK: 2, experts: 8, slots: 4, dim: 96, hidden: 80, blockSize: 8, capacity: 74 }],
  "moe/route": [
    { tokens: 9, experts: 128, topK: 8, groups: 1, keptGroups: 1 },
    { tokens: 9, experts: 4096, topK: 64, groups: 256, keptGroups: 256 },
  ],
  "attention/continual-retroactive": [13, 64].map((headDim) => ({ streams: 2, heads: 2, window: 200, headDim })),
  "attention/continual-single": [13, 64].map((headDim) => ({ streams: 2, heads: 2, window: 200, headDim })),
  "attention/merge": [{ parts: 4, rows: 64, valueDim: 128 }],
  "attention/decode": masked,
  "attention/decode-anchor": masked.map((axes) => ({ ...axes, granularity: 16 })),
  "attention/decode-sparse": masked.flatMap((axes) =>
    [2, axes.queryHeads as number].map((lists) => ({ ...axes, granularity: 16, lists, k: 20 })),
  ),
  "attention/page-stats": [16, 4].map((granularity) => ({ ...cache, headDim: 33, granularity })),
  "attention/page-scores": [33, 128].map((headDim) => ({ ...cache, queryHeads: 8, headDim, granularity: 4 })),
  "attention/key-hashes": [{ tokens: 9, kvHeads: 2, bits: 96, pages: 50, pageSize: 16 }],
  "attention/hash-scores": [32, 128].map((bits) => ({ ...cache, queryHeads: 8, bits, granularity: 4 })),
  "attention/index-scores": [33, 128].map((indexDim) => {
    const { kvHeads, ...rest } = cache;
    return { ...rest, heads: 12, indexDim, granularity: 4 };
  }),
  "attention/prefill": steps.map((axes) => ({ ...axes, tokens: 70 })),
  "attention/rope": [{ tokens: 9, heads: 2, headDim: 40, rotaryPairs: 16 }],
  "attention/select": [2, 1].map((lists) => ({ batch: 2, heads: 2, granules: 100, granularity: 16, lists, k: 20 })),
};

describe("every kernel compiles within WebGPU's least limits", () => {
  it("on a device with exactly those", () => {
    const { limits } = all.gpuDevice;
    expect([limits.maxStorageBuffersPerShaderStage, limits.maxStorageBufferBindingSize]).toEqual([8, 128 << 20]);
    expect(limits.maxComputeWorkgroupStorageSize).toBe(16384);
    expect(all.features).toEqual(["shader-f16", "subgroups", "timestamp-query"]);
    expect(none.features).toEqual([]);
  });

  for (const op of ops.filter(({ id }) => kernels[id])) {
    for (const variant of variants(op)) {
      it(`${op.id} | ${variantKey(op, variant)}`, async () => {
        for (const backend of [all, none]) {
          const held = (shapes[op.id] as readonly AnyAxes[]).filter((some) => op.constraints.every(({ holds }) => holds(some, variant)));
          // Of what slopes and masks share with the others, some.
          const tried = variant.slopes || variant.mask ? held.filter((_, i) => i % 3 === 0) : held;
          expect(tried.length).toBeGreaterThan(0);
          for (const axes of tried) {
            const kernel = backend.kernel({ op, axes, variant });
            if (typeof kernel === "string") throw new Error(kernel);
            await kernel.prepare();
          }
        }
      });
    }
  }

  it("says in which file and line a shader is wrong", async () => {
    const { device } = { device: all.gpuDevice };
    const module = device.createShaderModule({ code: compose(["lib/float"], new Set()) });
    expect((await module.getCompilationInfo()).messages).toEqual([]);
    expect(() => compose(["lib/nothing"], new Set())).toThrow(/there is no lib\/nothing.wgsl/);
  });
});

describe("the files", () => {
  it("lie under the op's path, one an op", () => {
    for (const op of ops) expect(existsSync(new URL(`../src/${op.id}.wgsl`, import.meta.url))).toBe(op.id in kernels);
  });

  it("choose lines by flags, nested, and put extensions first", () => {
    const half = compose(["lib/values"], new Set(["values_f16", "shader_f16", "subgroups"]));
    expect(half.startsWith("enable f16;\nenable subgroups;\n")).toBe(true);
    expect(half).toContain("vec2<f16>");
    const bytes = compose(["lib/values"], new Set(["values_i8"]));
    expect(bytes).not.toContain("f16>");
    expect(bytes.match(/const values_per_word/g)).toHaveLength(1);
  });
});

describe("windows", () => {
  const facts = {
    features: new Set<string>(),
    maxStorageBufferBindingSize: 128 << 20,
    maxBufferSize: 4 << 30,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeWorkgroupsPerDimension: 65535,
    tunables: { threads: 128, queries: 8, columns: 32, results: 16, bindingBytes: 2 ** 32 - 256 },
  };
  const program = (axes: Record<string, number>, rows: string): Program =>
    (kernels["search/scan"] as ProgramOf)(
      { op: ops.find(({ id }) => id === "search/scan") as (typeof ops)[number], axes, variant: { metric: "ip", rows, filter: false } },
      facts,
    ) as Program;

  it("split rows beyond one binding at multiples of 256 bytes, each row once", () => {
    for (const [rows, bytes] of [
      ["f32", 4],
      ["f16", 2],
      ["i8", 1],
    ] as const) {
      const axes = { batch: 3, count: 3_000_001, dim: 101, k: 10 };
      const launches = program(axes, rows).arrange({ rows: 101 }).launches(axes, {});
      let next = 0;
      for (const { pass, words, ranges } of launches) {
        if (pass !== "score") continue;
        expect(words[0]).toBe(next);
        next += words[1] as number;
        expect((ranges?.rows?.offset ?? 1) % 256).toBe(0);
        expect((ranges?.rowScale?.offset ?? 1) % 256).toBe(0);
        expect(ranges?.rows?.offset).toBe((words[0] as number) * 101 * bytes);
        expect(ranges?.rows?.bytes).toBeLessThanOrEqual(128 << 20);
      }
      expect(next).toBe(axes.count);
    }
  });

  it("give every chunk a list of its own, within the scratch", () => {
    const axes = { batch: 10_000, count: 1_000_000, dim: 64, k: 1024 };
    const { scratch, launches } = program(axes, "f32").arrange({ rows: 64 });
    const queries = new Set<number>();
    for (const { pass, words, workgroups, ranges } of launches(axes, {})) {
      if (pass === "score") expect((words[4] as number) + workgroups[0]).toBeLessThanOrEqual(words[5] as number);
      expect((words[3] as number) * Math.max(1, words[5] as number) * 200 * 8).toBeLessThanOrEqual(
        Math.max(scratch.first as number, scratch.second as number),
      );
      if (pass === "finish") queries.add(ranges?.ids?.offset ?? -1);
      for (const count of workgroups) expect(count).toBeLessThanOrEqual(65535);
    }
    expect([...queries].every((offset) => offset % 256 === 0)).toBe(true);
    expect(queries.size).toBeGreaterThan(1);
  });

  it("split pages beyond one binding at multiples of 256 bytes, each page once, with states of their own", () => {
    const op = ops.find(({ id }) => id === "attention/decode") as (typeof ops)[number];
    const axes = { batch: 40, queryHeads: 32, kvHeads: 8, headDim: 100, valueDim: 36, pages: 50_001, pageSize: 9, maxPages: 500 };
    const launch = (bytes: number) => {
      const limited = { ...facts, maxStorageBufferBindingSize: bytes };
      return (kernels["attention/decode"] as ProgramOf)({ op, axes, variant: { keyPages: "i8", sinks: false } }, limited);
    };
    const { scratch, launches } = (launch(64 << 20) as Program).arrange({});
    expect(scratch.states).toBeLessThanOrEqual(64 << 20);
    const seen = new Map<number, number>();
    for (const { pass, words, workgroups, ranges } of launches(axes, {})) {
      const [first, held, page, pages, parts, state, states] = words as [number, number, number, number, number, number, number];
      expect(Math.max(...workgroups)).toBeLessThanOrEqual(65535);
      if (pass === "finish") {
        for (let b = first; b < first + held; b++) expect(seen.get(b)).toBe(axes.pages);
        continue;
      }
      for (const { offset, bytes } of Object.values(ranges ?? {})) {
        expect(offset % 256).toBe(0);
        expect(bytes).toBeLessThanOrEqual(64 << 20);
      }
      expect(ranges?.keyPages?.offset).toBe(page * 8 * 9 * 100);
      expect(state + parts).toBeLessThanOrEqual(states);
      for (let b = first; b < first + held; b++) {
        expect(seen.get(b) ?? 0).toBe(page);
        seen.set(b, page + pages);
      }
    }
    expect(seen.size).toBe(40);
    expect(launch(256 << 10)).toMatch(/more than one binding of this device/);
  });

  it("of a prompt go over every token once, and for each over every page once, from states to states", () => {
    const op = ops.find(({ id }) => id === "attention/prefill") as (typeof ops)[number];
    const axes = {
      ...{ tokens: 20_000, batch: 3, queryHeads: 32, kvHeads: 8, headDim: 100, valueDim: 36 },
      ...{ pages: 50_001, pageSize: 9, maxPages: 500 },
    };
    const limited = { ...facts, maxStorageBufferBindingSize: 64 << 20 };
    const prefill = (kernels["attention/prefill"] as ProgramOf)({ op, axes, variant: { keyPages: "i8" } }, limited) as Program;
    const { scratch, launches } = prefill.arrange({});
    expect(scratch.work).toBeLessThanOrEqual(64 << 20);
    let [token, page, last] = [0, 0, -1];
    for (const { pass, words, workgroups, ranges } of launches(axes, {})) {
      const [first, held, from, pages, , , , resumes, continues, read, write] = words as (typeof words)[number][];
      expect(Math.max(...workgroups)).toBeLessThanOrEqual(65535);
      expect(first).toBe(token);
      for (const { offset, bytes } of Object.values(ranges ?? {})) {
        expect(offset % 256).toBe(0);
        expect(bytes).toBeLessThanOrEqual(64 << 20);
      }
      expect(4 * ((write as number) + 2 * 32 * (held as number)) + 256).toBeLessThanOrEqual(scratch.work as number);
      if (pass === "begin") [page, last] = [0, -1];
      else if (pass === "attend") {
        expect(from).toBe(page);
        expect(resumes).toBe(page > 0 ? 1 : 0);
        if (page > 0) expect([read, write === read]).toEqual([last, false]);
        page += pages as number;
        expect(continues).toBe(page < axes.pages ? 1 : 0);
        last = write as number;
      } else {
        expect([page, write]).toEqual([axes.pages, last]);
        token += held as number;
      }
    }
    expect(token).toBe(axes.tokens);
  });

  it("refuse rows that no binding holds", () => {
    const axes = { batch: 1, count: 100_000, dim: 8, k: 1 };
    expect(() => program(axes, "f32").arrange({ rows: 10_000_000 })).toThrow(/bindings of at most 134217728 bytes/);
  });
});
