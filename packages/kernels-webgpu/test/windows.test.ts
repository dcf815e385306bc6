/** The ops of a model beyond what suites give a driver on the CPU: tensors larger than one binding, a GPU's tiles, large angles. */
import { attention, createHotset, js, kvCache } from "@hotset/core";
import { type AnyVariant, type Op, variants } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { casesOf, prepare, runCase } from "@hotset/core/testing/cases";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { tableOf } from "../dist/attention/rope.js";
import { kernels, type WebgpuBackend, webgpu } from "../dist/index.js";
import type { Program, ProgramOf } from "../dist/program.js";

const opOf = (id: string): Op => ops.find((op) => op.id === id) as Op;
const whole = (variant: AnyVariant): boolean => variant.bias !== false && variant.residual !== false;

/** Checks an op at these sizes as conformance does. */
async function check(backend: WebgpuBackend, op: Op, axes: Record<string, number>, variant: AnyVariant): Promise<void> {
  const cases = await casesOf(op);
  const inputs = (cases.cases[0] as (typeof cases.cases)[number]).inputs;
  const { kernel, problems } = await runCase(backend, prepare(op, { name: "here", axes, inputs }, variant, 0), cases, "host", 0);
  expect(problems).toEqual([]);
  expect(kernel).toBeTypeOf("string");
}

describe.skipIf(without(swiftshader !== undefined))("a model's ops on SwiftShader (needs chromium's vk_swiftshader)", () => {
  const bindingBytes = 8192;
  const facts = {
    features: new Set<string>(),
    maxStorageBufferBindingSize: bindingBytes,
    maxBufferSize: 4 << 30,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeWorkgroupsPerDimension: 65535,
    tunables: { threads: 32, queries: 2, columns: 8, results: 64, bindingBytes },
  };
  let narrow: WebgpuBackend;
  let usual: WebgpuBackend;
  beforeAll(async () => {
    narrow = await webgpu({ tunables: { bindingBytes } });
    usual = await webgpu();
  });
  afterAll(() => {
    narrow.dispose();
    usual.dispose();
  });

  const beyond: Readonly<Record<string, Record<string, number>>> = {
    "attention/hash-scores": {
      ...{ batch: 2, queryHeads: 4, kvHeads: 2, bits: 64, pages: 300, pageSize: 4, maxPages: 100, granularity: 2 },
    },
    "attention/index-scores": { batch: 2, heads: 2, indexDim: 32, pages: 150, pageSize: 4, maxPages: 50, granularity: 2 },
    "attention/key-hashes": { tokens: 70, kvHeads: 2, bits: 32, pages: 400, pageSize: 4 },
    "attention/page-scores": {
      ...{ batch: 2, queryHeads: 4, kvHeads: 2, headDim: 16, pages: 150, pageSize: 4, maxPages: 60, granularity: 4 },
    },
    "attention/page-stats": { batch: 2, kvHeads: 2, headDim: 16, pages: 100, pageSize: 4, maxPages: 40, granularity: 2 },
    "attention/rope": { tokens: 70, heads: 2, headDim: 16, rotaryPairs: 8 },
    "kv-cache/append": { tokens: 70, kvHeads: 2, headDim: 16, valueDim: 12, pages: 100, pageSize: 4 },
    "kv-cache/compact": { batch: 2, kvHeads: 2, headDim: 16, valueDim: 12, pages: 81, pageSize: 4, maxPages: 40, maxKept: 160 },
    "model/embedding": { tokens: 70, vocab: 300, dim: 32 },
    "model/linear": { tokens: 20, inDim: 32, outDim: 256 },
    "model/rms-norm": { tokens: 70, dim: 64 },
    "model/swiglu": { tokens: 70, dim: 64 },
  };
  for (const [id, axes] of Object.entries(beyond)) {
    it(`${id} takes what exceeds one binding in windows`, async () => {
      const op = opOf(id);
      for (const variant of variants(op).filter(whole)) {
        const program = (kernels[id] as ProgramOf)({ op, axes, variant }, facts) as Program;
        const ranges = program
          .arrange({})
          .launches(axes, { theta: 10000 })
          .flatMap((launch) => Object.values(launch.ranges ?? {}));
        expect(ranges.some(({ offset }) => offset > 0)).toBe(true);
        for (const { offset, bytes } of ranges) {
          expect(offset % 256).toBe(0);
          expect(bytes).toBeLessThanOrEqual(bindingBytes);
        }
        await check(narrow, op, axes, variant);
      }
    });
  }

  it("model/linear has the tiles that a GPU gets", async () => {
    const backend = await webgpu({ tunables: { threads: 128, queries: 8, columns: 32, results: 16 } });
    const op = opOf("model/linear");
    for (const weight of ["f16", "q8_0"])
      for (const tokens of [3, 70]) await check(backend, op, { tokens, inDim: 96, outDim: 45 }, { weight, bias: true, residual: false });
    backend.dispose();
  });

  describe("attention/rope", () => {
    const positions = Int32Array.from({ length: 400 }, (_, i) => Math.trunc(1.055 ** i) * (i % 2 ? 1 : -1) + i);
    const x = Float32Array.from({ length: 800 }, (_, i) => 1 - (i % 2));
    const axes = { tokens: 400, heads: 1, headDim: 2, rotaryPairs: 1 };

    it("gives sines and cosines of angles up to 2^31 their full precision", async () => {
      const hotset = await createHotset({ backends: [usual] });
      const plan = await hotset.plan(attention.rope, axes, { pairs: "half", frequencies: true }, { backend: "webgpu" });
      expect(Math.max(...positions)).toBeGreaterThan(2 ** 30);
      for (const frequency of [1, -0.7, 1e-3, 3e-9, 1e-20].map(Math.fround)) {
        const { out } = await plan.bind({ x, positions, frequencies: Float32Array.of(frequency) }).runAsync();
        for (const [t, position] of positions.entries()) {
          const angle = position * frequency;
          // The f64 product is not exact either.
          const unsure = Math.abs(angle) * 2 ** -52;
          for (const [got, want] of [
            [out[2 * t] as number, Math.cos(angle)],
            [out[2 * t + 1] as number, Math.sin(angle)],
          ] as const)
            expect(Math.abs(got - want)).toBeLessThanOrEqual(4 * 2 ** -24 * Math.abs(want) + unsure);
        }
      }
    });

    it("takes another theta between runs", async () => {
      const hotset = await createHotset({ backends: [usual] });
      const wide = { ...axes, tokens: 2, headDim: 8, rotaryPairs: 4 };
      const plan = await hotset.plan(attention.rope, wide, { pairs: "half", frequencies: false }, { backend: "webgpu" });
      const step = plan.bind({ x: Float32Array.of(1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0), positions: Int32Array.of(3, 90001) });
      for (const theta of [10000, 500000, 2]) {
        step.set("theta", theta);
        const { out } = await step.runAsync();
        for (const [t, position] of [3, 90001].entries())
          for (let i = 0; i < 4; i++) expect(out[8 * t + i]).toBeCloseTo(Math.cos(position * theta ** (-i / 4)), 6);
      }
    });

    it("has turns that are the frequency's", () => {
      const [high, middle, low] = tableOf(10000, 4).slice(8) as [number, number, number];
      expect(high * 2 ** -32 + middle * 2 ** -64 + low * 2 ** -96).toBeCloseTo(0.01 / (2 * Math.PI), 17);
    });
  });

  it("kv-cache/append quantises rows of any size as the CPU does, subnormal ones too", async () => {
    const hotset = await createHotset({ backends: [js()] });
    const there = await createHotset({ backends: [usual] });
    const [tokens, dim] = [500, 24];
    const axes = { tokens, kvHeads: 1, headDim: dim, valueDim: dim, pages: tokens, pageSize: 1 };
    const bits = new Uint32Array(tokens * dim);
    let state = 1;
    for (let i = 0; i < bits.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      // A row's exponents lie within 8 of each other; the first rows are subnormal.
      const exponent = Math.max(0, ((Math.floor(i / dim) * 254) / tokens - 2 + ((state >>> 9) % 8)) | 0);
      bits[i] = ((state & 0x80000000) | (Math.min(254, exponent) << 23) | ((state >>> 3) & 0x7fffff)) >>> 0;
    }
    const rows = new Float32Array(bits.buffer);
    const made = async (where: typeof hotset, backend: "js" | "webgpu") => {
      const cache = { keyPages: new Int8Array(tokens * dim), valuePages: new Int8Array(tokens * dim) };
      const scales = { keyScale: new Float32Array(tokens), valueScale: new Float32Array(tokens) };
      const plan = await where.plan(kvCache.append, axes, { keyPages: "i8" }, { backend });
      const slots = Int32Array.from({ length: tokens }, (_, t) => t);
      await plan.bind({ keys: rows, values: rows.slice().reverse(), slots, ...cache, ...scales }).runAsync();
      return { ...cache, ...scales };
    };
    const [want, got] = [await made(hotset, "js"), await made(there, "webgpu")];
    expect(want.keyScale.filter((scale) => scale > 0 && scale < 2 ** -126).length).toBeGreaterThan(4);
    for (const name of ["keyPages", "valuePages", "keyScale", "valueScale"] as const) expect([...got[name]]).toEqual([...want[name]]);
  });
});
