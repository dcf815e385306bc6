/**
 * `node bench/dist/figures-prefill.js`: causal attention of 1024 and of 2048 tokens at once, against the multiply-add peak
 * of the machine (the causal half of the products counts) and onnxruntime-node's GroupQueryAttention. One run, native, 32
 * query and 8 KV heads of 128, pages of 16; HOTSET_THREADS threads, 2 without it. Results are checked before they are
 * timed. About a minute, 1 GB.
 */
import { cpus } from "node:os";
import { setTimeout } from "node:timers/promises";
import { Random } from "@hotset/core/testing/cases";
import { native } from "@hotset/kernels-native";
import { attention, createHotset, f16ToNumber, toF16 } from "hotset";
import { onnxruntime } from "./peers/onnxruntime.js";
import { median, once } from "./timing.js";

const threads = Number(process.env.HOTSET_THREADS ?? 2);
const [queryHeads, kvHeads, dim, pageSize] = [32, 8, 128, 16];
const backend = native({ threads });
const hotset = await createHotset({ backends: [backend] });
const peer = await onnxruntime(threads);
console.log(`${cpus()[0]?.model.trim()}, ${threads} threads, ${backend.name}, Node ${process.version}: 32/8 heads x 128, causal\n`);
if (typeof peer === "string") console.log(`no peer: ${peer}`);

for (const [tokens, aim] of [
  [1024, 0.65],
  [2048, 0.72],
] as const)
  await measure(tokens, aim);
hotset.dispose();

async function measure(tokens: number, aim: number): Promise<void> {
  const random = new Random(`figures-prefill ${tokens}`);
  const values = (heads: number): Float32Array => {
    const pattern = random.values(2 ** 18 + 1, () => random.normal());
    return new Float32Array(tokens * heads * dim).map((_, i) => pattern[i % pattern.length] as number);
  };
  const given = { queries: values(queryHeads), keys: values(kvHeads), values: values(kvHeads) };
  // [tokens, kvHeads, dim] to [pages, kvHeads, pageSize, dim].
  const paged = (rows: Float32Array): Float32Array => {
    const out = new Float32Array(rows.length);
    for (let t = 0; t < tokens; t++)
      for (let head = 0; head < kvHeads; head++)
        out.set(
          rows.subarray((t * kvHeads + head) * dim, (t * kvHeads + head + 1) * dim),
          ((Math.floor(t / pageSize) * kvHeads + head) * pageSize + (t % pageSize)) * dim,
        );
    return out;
  };
  const pages = tokens / pageSize;
  const axes = { tokens, batch: 1, queryHeads, kvHeads, headDim: dim, valueDim: dim, pages, pageSize, maxPages: pages };
  const rest = {
    queries: given.queries,
    pageTable: Int32Array.from({ length: pages }, (_, i) => i),
    queryOffsets: Int32Array.of(0, tokens),
    lengths: Int32Array.of(tokens),
  };
  const [keyPages, valuePages] = [paged(given.keys), paged(given.values)];
  const plan = (dtype: "f32" | "f16") => hotset.planSync(attention.prefill, axes, { keyPages: dtype }, { backend: "native" });
  const f32 = plan("f32").bind({ ...rest, keyPages, valuePages } as never);
  const f16 = plan("f16").bind({ ...rest, keyPages: toF16(keyPages), valuePages: toF16(valuePages) } as never);
  const out = (step: typeof f32): Float32Array => (step.run() as { out: Float32Array }).out;
  check("f16 cache", out(f16), out(f32), 1e-2);

  const runs: Record<string, () => unknown> = { "f32 cache": () => f32.run(), "f16 cache": () => f16.run() };
  if (typeof peer !== "string") {
    const sizes = { queryHeads, kvHeads, tokens, dim };
    const whole = await peer.bindPrefill({ ...sizes, dtype: "f32", ...given });
    check("onnxruntime GroupQueryAttention", (await whole()) as Float32Array, out(f32), 1e-4);
    const half = await peer.bindPrefill({
      ...sizes,
      dtype: "f16",
      queries: toF16(given.queries),
      keys: toF16(given.keys),
      values: toF16(given.values),
    });
    check("onnxruntime GroupQueryAttention, f16", Float32Array.from((await half()) as Uint16Array, f16ToNumber), out(f16), 1e-2);
    runs["onnxruntime GroupQueryAttention, f32"] = whole;
    runs["onnxruntime GroupQueryAttention, f16"] = half;
  }
  const times = new Map<string, number[]>(Object.keys(runs).map((name) => [name, []]));
  const peaks: number[] = [];
  for (let part = 0; part < 5; part++) {
    for (let round = 0; round < 2; round++) {
      peaks.push(backend.probe({ kind: "madd" }));
      for (const step of [f32, f16]) times.get(step === f32 ? "f32 cache" : "f16 cache")?.push(once(() => step.run()));
    }
    for (const [name, run] of Object.entries(runs).slice(2))
      for (let round = 0; round < 2; round++) {
        const start = performance.now();
        await run();
        times.get(name)?.push(performance.now() - start);
      }
    // Its threads spin for a while after a run, on the cores that are measured next.
    await setTimeout(times.size > 2 ? 200 : 0);
  }
  const flops = 2 * ((tokens * (tokens + 1)) / 2) * queryHeads * 2 * dim;
  const peak = median(peaks);
  const ms = (name: string): number => median(times.get(name) ?? []);
  console.log(`${tokens} tokens; multiply-add peak ${peak.toFixed(0)} GFLOP/s`);
  for (const name of times.keys()) {
    const share = flops / ms(name) / 1e6 / peak;
    console.log(`  ${name.padEnd(42)} ${ms(name).toFixed(1).padStart(8)} ms  ${(100 * share).toFixed(0).padStart(3)} % of the peak`);
  }
  const ratio = (name: string, value: number, least: number, unit = "x"): void =>
    console.log(`${value >= least ? "+" : "-"} ${name.padEnd(52)} ${value.toFixed(2).padStart(6)} ${unit}  at least ${least} ${unit}`);
  ratio("f32: share of the multiply-add peak", flops / ms("f32 cache") / 1e6 / peak, aim, " ");
  ratio("f32 cache over f16 cache (f16 no slower)", ms("f32 cache") / ms("f16 cache"), 1);
  if (typeof peer !== "string")
    ratio(`over ${peer.version} GroupQueryAttention, f32`, ms("onnxruntime GroupQueryAttention, f32") / ms("f32 cache"), 1.15);
  console.log();
}

function check(name: string, found: Float32Array, expected: Float32Array, within: number): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const far = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (found[i] as number))), 0);
  if (!(far <= within * largest)) throw new Error(`${name} gives other results: ${far} where the largest is ${largest}`);
}
