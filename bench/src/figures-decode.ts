/** attention/decode against the limits of the machine and onnxruntime: 32 query heads, 8 KV heads, 128 wide, 16384 tokens. */
import { setTimeout } from "node:timers/promises";
import { portDType } from "@hotset/core/backend";
import { type BenchCase, casesOf, Random } from "@hotset/core/testing/cases";
import { attention, createHotset, f16ToNumber, type HostBackend, type Op, toF16 } from "hotset";
import type { DecodePeer } from "./peers/onnxruntime.js";
import { median, once } from "./timing.js";

const axes = { batch: 1, queryHeads: 32, kvHeads: 8, headDim: 128, valueDim: 128 };
const tokens = 16384;
const dtypes = ["f32", "f16", "i8"] as const;
export type CacheDType = (typeof dtypes)[number];
type Inputs = Record<string, Float32Array | Uint16Array>;

export interface DecodeFigure {
  readonly dtype: CacheDType;
  readonly ms: number;
  /** Share of the nearer limit: bytes over read bandwidth, or multiply-adds over their peak. */
  readonly share: number;
  /** Largest error against f64 sums over the same cache, over the largest output. */
  readonly error: number;
  /** The peer's time for the same step, where it has one. */
  readonly peerMs: number | undefined;
}

/** One run; `pageSize` of 16384 is a cache in one piece, which a peer can take. */
export async function decodeFigures(backend: HostBackend, pageSize: number, peer?: DecodePeer): Promise<DecodeFigure[]> {
  const hotset = await createHotset({ backends: [backend] });
  const pages = tokens / pageSize;
  const sizes = { ...axes, pages, pageSize, maxPages: pages };
  const { inputs } = (await casesOf(attention.decode as unknown as Op)).bench[0] as BenchCase;
  const jobs = [];
  for (const dtype of dtypes) {
    const variant = { keyPages: dtype, sinks: false };
    const data = inputs({ axes: sizes, variant, random: new Random("figures") }) as Inputs;
    const typed = Object.entries(data).map(([name, array]) => {
      return [name, { data: array, dtype: portDType(attention.decode as unknown as Op, name, variant) }];
    });
    const plan = hotset.planSync(attention.decode, sizes, variant, { backend: backend.id });
    const given = Object.entries(data).map(([name, array]) => [name, plan.alloc(name as "queries").upload(array as Float32Array)]);
    const step = plan.bind(Object.fromEntries(backend.inPlace ? typed : given));
    const reference = hotset.planSync(attention.decode, sizes, variant, { backend: "js" }).bind(Object.fromEntries(typed));
    const expected = reference.run().out as Float32Array;
    const theirs = peer && dtype !== "i8" ? await peerStep(peer, dtype, data, expected) : undefined;
    jobs.push({
      dtype,
      step,
      theirs,
      error: errorOf(step.run().out as Float32Array, expected),
      times: [] as number[],
      peers: [] as number[],
    });
  }
  const reads: number[] = [];
  const madds: number[] = [];
  for (let part = 0; part < 3; part++) {
    reads.push(backend.probe({ kind: "read", bytes: 256 << 20 }));
    madds.push(backend.probe({ kind: "madd" }));
    for (let round = 0; round < 5; round++) for (const { step, times } of jobs) times.push(once(() => step.run()));
    for (let round = 0; round < 5; round++) {
      for (const { theirs, peers } of jobs) {
        if (!theirs) continue;
        const start = performance.now();
        await theirs();
        peers.push(performance.now() - start);
      }
    }
    // Its threads spin for a while after a run, on the cores that are measured next.
    await setTimeout(peer ? 200 : 0);
  }
  for (const { step } of jobs) step.dispose();
  const [read, madd] = [median(reads), median(madds)];
  return jobs.map(({ dtype, error, times, peers }) => {
    const ms = median(times);
    const bytes = 2 * axes.kvHeads * tokens * axes.headDim * { f32: 4, f16: 2, i8: 1 }[dtype];
    const flops = 4 * axes.queryHeads * tokens * axes.headDim;
    const share = Math.max(bytes / read, flops / madd) / 1e6 / ms;
    return { dtype, ms, share, error, peerMs: peers.length ? median(peers) : undefined };
  });
}

/** The peer's step, after its answer was checked: its f16 outputs are rounded. */
async function peerStep(peer: DecodePeer, dtype: "f32" | "f16", data: Inputs, expected: Float32Array) {
  const { queries, keyPages, valuePages } = data as Record<"queries" | "keyPages" | "valuePages", Float32Array>;
  const { queryHeads, kvHeads, headDim: dim } = axes;
  const job = { queryHeads, kvHeads, tokens, dim, dtype, queries: dtype === "f16" ? toF16(queries) : queries };
  const step = await peer.bind({ ...job, keys: keyPages, values: valuePages });
  const found = await step();
  const error = errorOf(found instanceof Uint16Array ? Float32Array.from(found, f16ToNumber) : Float32Array.from(found), expected);
  if (!(error < (dtype === "f16" ? 5e-3 : 1e-4))) throw new Error(`${peer.name} gives other results: relative error ${error}`);
  return step;
}

function errorOf(found: Float32Array, expected: Float32Array): number {
  let [far, largest] = [0, 0];
  for (const [i, value] of expected.entries()) {
    far = Math.max(far, Math.abs(value - (found[i] as number)));
    largest = Math.max(largest, Math.abs(value));
  }
  return far / largest;
}
