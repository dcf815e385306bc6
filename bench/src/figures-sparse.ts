/**
 * `node bench/dist/figures-sparse.js`: sparse decode of 1024 of 16384 tokens, and the anchor that finds them, against our
 * dense decode and against onnxruntime-node's Gather followed by Attention. One run, native, f32, 32 query and 8 KV heads
 * of 128; HOTSET_THREADS threads, 2 without it. Every result is checked before it is timed. About a minute, 1 GB.
 */
import { cpus } from "node:os";
import { setTimeout } from "node:timers/promises";
import { Random } from "@hotset/core/testing/cases";
import { native } from "@hotset/kernels-native";
import { attention, createHotset } from "hotset";
import { onnxruntime } from "./peers/onnxruntime.js";
import { median, once } from "./timing.js";

const threads = Number(process.env.HOTSET_THREADS ?? 2);
const tokens = 16384;
const [pageSize, granularity, listed] = [16, 16, 1024];
const axes = {
  batch: 1,
  queryHeads: 32,
  kvHeads: 8,
  headDim: 128,
  valueDim: 128,
  pages: tokens / pageSize,
  pageSize,
  maxPages: tokens / pageSize,
};
const granules = tokens / granularity;
const random = new Random("figures-sparse");
const backend = native({ threads });
const hotset = await createHotset({ backends: [backend] });
const on = { backend: "native" } as const;

const values = (length: number): Float32Array => {
  const pattern = random.values(2 ** 18 + 1, () => random.normal());
  return new Float32Array(length).map((_, i) => pattern[i % pattern.length] as number);
};
const stored = axes.pages * axes.kvHeads * pageSize * 128;
// Pages lie in random order, as a pool hands them out.
const pageTable = Int32Array.from(chosen(axes.pages, axes.pages));
const cache = {
  queries: values(axes.queryHeads * 128),
  keyPages: values(stored),
  valuePages: values(stored),
  pageTable,
  lengths: Int32Array.of(tokens),
};
const oneList = chosen(granules, listed / granularity).sort((a, b) => a - b);

function chosen(of: number, count: number): number[] {
  const all = Array.from({ length: of }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const j = i + random.below(of - i);
    [all[i], all[j]] = [all[j] as number, all[i] as number];
  }
  return all.slice(0, count);
}

const dense = hotset.planSync(attention.decode, axes, { keyPages: "f32" }, on).bind(cache);
const anchor = hotset.planSync(attention.decodeAnchor, { ...axes, granularity }, { keyPages: "f32" }, on).bind(cache);
const sparse = (lists: number, size: number) => {
  const list = (): number[] =>
    lists === 1
      ? oneList.flatMap((granule) => Array.from({ length: granularity / size }, (_, i) => (granule * granularity) / size + i))
      : chosen(tokens / size, listed / size).sort((a, b) => a - b);
  const selected = Int32Array.from(Array.from({ length: lists }, list).flat());
  const sizes = { ...axes, granularity: size, lists, k: listed / size };
  const step = hotset.planSync(attention.decodeSparse, sizes, { keyPages: "f32" }, on).bind({ ...cache, selected });
  const reference = hotset.planSync(attention.decodeSparse, sizes, { keyPages: "f32" }, { backend: "js" }).bind({ ...cache, selected });
  check(`decode-sparse, ${lists} lists`, step.run().out, reference.run().out);
  return step;
};
const select = hotset
  .planSync(attention.select, { batch: 1, heads: 8, granules, granularity, lists: 8, k: listed / granularity }, {}, on)
  .bind({ scores: anchor.run().masses, lengths: cache.lengths }, {}, { sink: 16, recent: 16 });

check("decode-anchor", anchor.run().out, dense.run().out);
const steps = {
  "dense decode": dense,
  "decode-anchor": anchor,
  select,
  "sparse, one list of 64 pages": sparse(1, granularity),
  "sparse, a list per KV head": sparse(8, granularity),
  "sparse, 1024 single tokens per KV head": sparse(8, 1),
};
const peer = await onnxruntime(threads);
const theirs = typeof peer === "string" ? undefined : await peerSteps(peer);
if (typeof peer === "string") console.log(`no peer: ${peer}`);

const times = new Map<string, number[]>();
const keep = (name: string, ms: number): void => void times.set(name, [...(times.get(name) ?? []), ms]);
for (let part = 0; part < 4; part++) {
  // The anchor right after the dense step, round by round: their ratio is a few percent.
  for (let round = 0; round < 7; round++)
    for (const name of ["dense decode", "decode-anchor"] as const)
      keep(
        name,
        once(() => steps[name].run()),
      );
  for (const [name, step] of Object.entries(steps).slice(2))
    for (let round = 0; round < 7; round++)
      keep(
        name,
        once(() => step.run()),
      );
  for (const [name, step] of Object.entries(theirs ?? {}))
    for (let round = 0; round < 7; round++) {
      const start = performance.now();
      await step();
      keep(name, performance.now() - start);
    }
  // Its threads spin for a while after a run, on the cores that are measured next.
  await setTimeout(theirs ? 200 : 0);
}

const ms = (name: string): number => median(times.get(name) ?? []);
console.log(
  `${cpus()[0]?.model.trim()}, ${threads} threads, Node ${process.version}: f32, 32/8 heads x 128, ${tokens} tokens in pages of 16\n`,
);
for (const name of times.keys()) console.log(`${name.padEnd(40)} ${ms(name).toFixed(3).padStart(8)} ms`);
console.log();
const ratio = (name: string, value: number, aim: number, atLeast = true): void =>
  console.log(
    `${(atLeast ? value >= aim : value <= aim) ? "+" : "-"} ${name.padEnd(58)} ${value.toFixed(2).padStart(6)} x  ${atLeast ? "at least" : "at most"} ${aim} x`,
  );
ratio("sparse, one list, over dense decode", ms("dense decode") / ms("sparse, one list of 64 pages"), 8);
ratio("sparse, a list per KV head, over dense decode", ms("dense decode") / ms("sparse, a list per KV head"), 8);
if (theirs) {
  // The faster of its two ways.
  const peerMs = Math.min(...["pages", "tokens"].map((what) => ms(`onnxruntime Gather of ${what} + Attention`)));
  ratio("sparse, one list, over onnxruntime Gather + Attention", peerMs / ms("sparse, one list of 64 pages"), 2.5);
}
ratio("time of the anchor over that of dense decode", ms("decode-anchor") / ms("dense decode"), 1.15, false);

/** The peer over the same tokens: its cache in one piece, of which it gathers pages. */
async function peerSteps(found: Exclude<typeof peer, string>) {
  const inOrder = (pages: Float32Array): Float32Array => {
    const out = new Float32Array(pages.length);
    const row = pageSize * 128;
    for (const [i, page] of pageTable.entries())
      for (let head = 0; head < axes.kvHeads; head++)
        out.set(
          pages.subarray((page * axes.kvHeads + head) * row, (page * axes.kvHeads + head + 1) * row),
          (head * axes.maxPages + i) * row,
        );
    return out;
  };
  const { queryHeads, kvHeads } = axes;
  const job = { queryHeads, kvHeads, tokens, dim: 128, dtype: "f32" as const, queries: cache.queries };
  const [keys, valuesInOrder] = [inOrder(cache.keyPages), inOrder(cache.valuePages)];
  const whole = await found.bind({ ...job, keys, values: valuesInOrder });
  const singles = oneList.flatMap((page) => Array.from({ length: pageSize }, (_, i) => page * pageSize + i));
  const byPage = await found.bind({ ...job, keys, values: valuesInOrder, listed: { pageSize, pages: oneList } });
  const byToken = await found.bind({ ...job, keys, values: valuesInOrder, listed: { pageSize: 1, pages: singles } });
  check("onnxruntime Attention", (await whole()) as Float32Array, dense.run().out);
  for (const step of [byPage, byToken])
    check("onnxruntime Gather + Attention", (await step()) as Float32Array, steps["sparse, one list of 64 pages"].run().out);
  return {
    "onnxruntime Attention, dense": whole,
    "onnxruntime Gather of pages + Attention": byPage,
    "onnxruntime Gather of tokens + Attention": byToken,
  };
}

function check(name: string, found: Float32Array, expected: Float32Array): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const far = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (found[i] as number))), 0);
  if (!(far <= 1e-4 * largest)) throw new Error(`${name} gives other results: ${far} where the largest is ${largest}`);
}
