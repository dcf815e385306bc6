/** attention/decode against the limits of the machine: 32 query heads, 8 KV heads, 128 wide, 16384 tokens. */
import { attention, createHotset, type HostBackend, toF16, toI8Rows } from "hotset";
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
  const [keys, values] = [noise(elements, 1), noise(elements, 2)];
  const pages = tokens / pageSize;
  const pageTable = Int32Array.from({ length: pages }, (_, i) => (i * 7919) % pages);
  const steps = dtypes.map((dtype) => {
    const plan = hotset.planSync(
      attention.decode,
      { ...axes, pages, pageSize, maxPages: pages },
      { keyPages: dtype, sinks: false },
      { backend: backend.id },
    );
    const inputs = {
      queries: noise(axes.queryHeads * axes.headDim, 3),
      pageTable,
      lengths: Int32Array.of(tokens),
      ...stored("key", dtype, keys),
      ...stored("value", dtype, values),
    };
    if (!backend.inPlace)
      for (const [name, value] of Object.entries(inputs)) {
        const tensor = plan.alloc(name as "queries");
        tensor.data.set(("data" in value ? value.data : value) as Float32Array);
        Object.assign(inputs, { [name]: tensor });
      }
    return plan.bind(inputs as never);
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

function stored(name: "key" | "value", dtype: CacheDType, data: Float32Array): Record<string, object> {
  if (dtype === "f32") return { [`${name}Pages`]: data };
  if (dtype === "f16") return { [`${name}Pages`]: { data: toF16(data), dtype } };
  const { data: bytes, scale } = toI8Rows(data, axes.headDim);
  return { [`${name}Pages`]: bytes, [`${name}Scale`]: scale };
}

function noise(length: number, seed: number): Float32Array {
  const out = new Float32Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    out[i] = state / 2 ** 31;
  }
  return out;
}
