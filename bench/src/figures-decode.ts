/** attention/decode against the limits of the machine: 32 query heads, 8 KV heads, 128 wide, 16384 tokens. */
import { portDType } from "@hotset/core/backend";
import { type BenchCase, casesOf, Random } from "@hotset/core/testing/cases";
import { attention, createHotset, type HostBackend, type Op } from "hotset";
import { interleaved, median } from "./timing.js";

const axes = { batch: 1, queryHeads: 32, kvHeads: 8, headDim: 128, valueDim: 128 };
const tokens = 16384;
const dtypes = ["f32", "f16", "i8"] as const;
export type CacheDType = (typeof dtypes)[number];

export interface DecodeFigure {
  readonly dtype: CacheDType;
  readonly ms: number;
  /** Share of the nearer limit: bytes over read bandwidth, or multiply-adds over their peak. */
  readonly share: number;
}

/** One run; `pageSize` of 16384 is a cache in one piece. */
export async function decodeFigures(backend: HostBackend, pageSize: number): Promise<DecodeFigure[]> {
  const hotset = await createHotset({ backends: [backend] });
  const elements = axes.kvHeads * tokens * axes.headDim;
  const pages = tokens / pageSize;
  const sizes = { ...axes, pages, pageSize, maxPages: pages };
  const { inputs } = (await casesOf(attention.decode as unknown as Op)).bench[0] as BenchCase;
  const steps = dtypes.map((keyPages) => {
    const variant = { keyPages, sinks: false };
    const plan = hotset.planSync(attention.decode, sizes, variant, { backend: backend.id });
    const given = Object.entries(inputs({ axes: sizes, variant, random: new Random("figures") })).map(([name, data]) => {
      if (backend.inPlace) return [name, { data, dtype: portDType(attention.decode as unknown as Op, name, variant) }];
      const tensor = plan.alloc(name as "queries");
      return [name, tensor.upload(data as Float32Array)];
    });
    return plan.bind(Object.fromEntries(given));
  });
  const reads: number[] = [];
  const madds: number[] = [];
  const times: number[][] = dtypes.map(() => []);
  for (let part = 0; part < 3; part++) {
    reads.push(backend.probe({ kind: "read", bytes: 256 << 20 }));
    madds.push(backend.probe({ kind: "madd" }));
    const runs = steps.map((step) => () => step.run());
    for (const [i, list] of interleaved(runs, 5).entries()) times[i]?.push(...list);
  }
  for (const step of steps) step.dispose();
  const [read, madd] = [median(reads), median(madds)];
  return dtypes.map((dtype, i) => {
    const ms = median(times[i] as number[]);
    const bytes = 2 * elements * { f32: 4, f16: 2, i8: 1 }[dtype];
    const flops = 4 * axes.queryHeads * tokens * axes.headDim;
    return { dtype, ms, share: Math.max(bytes / read, flops / madd) / 1e6 / ms };
  });
}
