import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createHotset, kvCache, search } from "@hotset/core";
import { type DType, dtypes, portDType } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { describe, expect, it } from "vitest";

const folder = fileURLToPath(new URL("../../../vectors", import.meta.url));
const load = <T>(path: string): T => JSON.parse(readFileSync(`${folder}/${path}`, "utf8")) as T;

interface ScanVector {
  name: string;
  axes: { batch: number; count: number; dim: number; k: number };
  variant: { metric: "cos" | "ip" | "l2"; rows: "f32" | "f16" | "bf16" | "i8"; filter: boolean };
  inputs: { queries: number[]; rows: number[]; rowScale?: number[]; allowed?: number[] };
  expected: { ids: number[][]; scores: (number | string)[][]; found: number[] };
}

describe("the references agree with independent vectors", async () => {
  const hotset = await createHotset();

  for (const { name, axes, variant, inputs, expected } of load<ScanVector[]>("search/scan.json")) {
    it(`search/scan: ${name}`, async () => {
      const rows = { f32: Float32Array, f16: Uint16Array, bf16: Uint16Array, i8: Int8Array }[variant.rows].from(inputs.rows);
      const filter = new Uint32Array(Math.ceil(axes.count / 32));
      for (const row of inputs.allowed ?? []) filter[row >> 5] = (filter[row >> 5] as number) | (1 << (row & 31));
      const { ids, scores, found } = await hotset.call(search.scan, {
        ...axes,
        metric: variant.metric,
        queries: Float32Array.from(inputs.queries),
        rows: { data: rows, dtype: variant.rows as DType, shape: [axes.count, axes.dim] } as never,
        ...(inputs.rowScale ? { rowScale: Float32Array.from(inputs.rowScale) } : {}),
        ...(variant.filter ? { filter: { data: filter, dtype: "bits", shape: [axes.count] } } : {}),
      });
      expect([...ids]).toEqual(expected.ids.flat());
      expect([...found]).toEqual(expected.found);
      // The reference rounds once, from sums whose error is far below f32's: one rounding of the exact value.
      expected.scores.flat().forEach((wanted, i) => {
        const exact = Number(wanted);
        if (!Number.isFinite(exact)) expect(scores[i]).toBe(exact);
        else expect(Math.abs((scores[i] as number) - exact)).toBeLessThanOrEqual(2 ** -24 * Math.abs(exact) * (1 + 1e-6));
      });
    });
  }

  interface PoolVector {
    blocks: number;
    commands: [number, number][];
    results: number[];
    free: number[];
    references: number[];
  }
  for (const { blocks, commands, results: wanted, free, references } of load<PoolVector[]>("kv-cache/pool-apply.json")) {
    it(`kv-cache/pool-apply: ${commands.length} commands on ${blocks} blocks`, async () => {
      const state = new Uint32Array(8 + 3 * blocks);
      const { results } = await hotset.call(kvCache.poolApply, { blocks, state, commands: Uint32Array.from(commands.flat()) });
      expect([...results]).toEqual(wanted);
      expect([...state.subarray(8, 8 + blocks)]).toEqual(references);
      const queue: number[] = [];
      for (let block = state[3] as number; block !== 0xffffffff && queue.length <= blocks; block = state[8 + 2 * blocks + block] as number)
        queue.push(block);
      expect(queue).toEqual(free);
      expect(state[2]).toBe(free.length);
    });
  }
});

interface Vector {
  name: string;
  axes: Record<string, number>;
  variant: Record<string, string | boolean>;
  scalars: Record<string, number>;
  inputs: Record<string, (number | string)[]>;
  expected: Record<string, (number | string)[]>;
}

describe("references of f32 arithmetic agree with independent vectors", async () => {
  const hotset = await createHotset();
  for (const op of ops.filter(({ id }) => id !== "search/scan" && id !== "kv-cache/pool-apply")) {
    for (const { name, axes, variant, scalars, inputs, expected } of load<Vector[]>(`${op.id}.json`)) {
      it(`${op.id}: ${name}`, () => {
        const arrays = Object.fromEntries(
          Object.entries(inputs).map(([port, values]) => {
            const dtype = portDType(op, port, variant) as DType;
            return [port, { data: (dtypes[dtype].storage as unknown as Float32ArrayConstructor).from(values.map(Number)), dtype }];
          }),
        );
        const outputs = hotset
          .planSync(op, axes, variant)
          .bind(arrays as never, {}, scalars)
          .run();
        for (const [port, wanted] of Object.entries(expected)) {
          wanted.map(Number).forEach((exact, i) => {
            const given = arrays[port]?.data;
            const got = Number(((outputs as Record<string, Float32Array>)[port] ?? given)?.[i]);
            if (!Number.isFinite(exact)) expect(got).toBe(exact);
            // Sums in f64, rounded once to f32.
            else expect(Math.abs(got - exact)).toBeLessThanOrEqual(2 ** -24 * Math.abs(exact) * (1 + 1e-6) + 1e-14);
          });
        }
      });
    }
  }
});

describe("the vectors are what their scripts make", () => {
  const python = spawnSync("python3", ["--version"]).status === 0;
  for (const script of readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".py") && name !== "common.py",
  )) {
    it.skipIf(!python)(`${script} (needs python3)`, () => {
      const { status, stderr } = spawnSync("python3", [`${folder}/${script}`, "--check"], { encoding: "utf8" });
      expect(stderr).toBe("");
      expect(status).toBe(0);
    });
  }
});
