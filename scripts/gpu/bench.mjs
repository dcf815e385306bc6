// Times Hotset's kernels on one device, case by case, a line of JSON each: the device's own clock (step.time()), and runs
// queued one after the other. A sample of every answer is compared with sums in f64 here; all of it is written to a file
// for torch_peer.py to compare.
//
//   node bench.mjs <backend> <cases.json> <folder> [--start N] [--emulated]
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createHotset } from "@hotset/core";
import { decode } from "@hotset/core/attention";
import { scan } from "@hotset/core/search";
import { copyOffset, Pattern, pageOf, queriesOf, scaleAt, scalesOf, valueOffset } from "./data.mjs";
import { open, say } from "./open.mjs";

const [id, list, folder, ...options] = process.argv.slice(2);
const start = options.includes("--start") ? Number(options[options.indexOf("--start") + 1]) : 0;
const { cases, seconds } = JSON.parse(readFileSync(list, "utf8"));

const backend = await open(id, options.includes("--emulated"));
const hotset = await createHotset({ backends: [backend] });
const limits = {};
for (const [name, probe] of [
  ["readGBs", { kind: "read", bytes: cases[0].tiny ? 1 << 20 : 2 ** 30 }],
  ["maddGflops", { kind: "madd" }],
])
  limits[name] = await backend.probe(probe).catch((error) => error.message);
say({ bench: { name: backend.name, target: backend.target, features: backend.features, cases: cases.length }, limits });

const patterns = new Map();
function patternOf({ dtype, period }) {
  const key = `${dtype} ${period}`;
  // One at a time: a pattern in f32 is 80 MB.
  if (!patterns.has(key)) patterns.clear();
  if (!patterns.has(key)) patterns.set(key, new Pattern(dtype, period));
  return patterns.get(key);
}

for (let i = start; i < cases.length; i++) {
  const test = cases[i];
  say({ begin: i, name: test.name });
  try {
    say({ end: i, name: test.name, ...(await (test.kind === "decode" ? measureDecode : measureScan)(test)) });
  } catch (error) {
    say({ end: i, name: test.name, error: String(error?.message ?? error).slice(0, 1000), code: error?.code });
  }
  if (backend.device.lost !== undefined) process.exit(3);
}
say({ done: true });
backend.dispose();
process.exit(0);

/** Plans, binds a step to each copy of the data, times and checks; and gives all memory back. */
async function measure(test, op, axes, variant, fill, check) {
  const plan = await hotset.plan(op, axes, variant, { backend: id });
  const tensors = [];
  const steps = [];
  const alloc = (name) => {
    const tensor = plan.alloc(name);
    tensors.push(tensor);
    return tensor;
  };
  try {
    const outputs = [];
    for (let copy = 0; copy < test.copies; copy++) {
      const { inputs, results } = await fill(alloc, copy);
      outputs.push(results);
      steps.push(plan.bind(inputs, results));
    }
    const times = await timed(steps);
    const answer = await check(outputs[0]);
    const { bytes, flops } = op.cost(axes, plan.variant);
    return { kernel: plan.kernel, bytes, flops, ...times, ...answer };
  } finally {
    for (const step of steps) step.dispose();
    for (const tensor of tensors) tensor.dispose();
  }
}

async function measureDecode(test) {
  const { dtype, batch, queryHeads, kvHeads, headDim, context, pageSize } = test;
  const pattern = patternOf(test);
  const maxPages = context / pageSize;
  const pages = batch * maxPages;
  const axes = { batch, queryHeads, kvHeads, headDim, valueDim: headDim, pages, pageSize, maxPages };
  const queries = queriesOf(batch * queryHeads * headDim, 8);
  const table = Int32Array.from({ length: pages }, (_, index) => pageOf(index, pages));
  const elements = pages * kvHeads * pageSize * headDim;
  const fill = async (alloc, copy) => {
    const inputs = {};
    for (const [name, data] of [
      ["queries", queries],
      ["pageTable", table],
      ["lengths", new Int32Array(batch).fill(context)],
    ])
      inputs[name] = alloc(name).upload(data);
    for (const [name, offset] of [
      ["key", 0],
      ["value", valueOffset],
    ]) {
      inputs[`${name}Pages`] = alloc(`${name}Pages`);
      await pattern.upload(inputs[`${name}Pages`], elements, offset + copy * copyOffset);
      if (dtype === "i8") inputs[`${name}Scale`] = alloc(`${name}Scale`).upload(scalesOf(elements / headDim, offset));
    }
    return { inputs, results: { out: alloc("out"), lse: alloc("lse") } };
  };
  return measure(test, decode, axes, { keyPages: dtype }, fill, async ({ out }) => {
    const got = await out.download();
    writeFileSync(join(folder, `${test.name}.${id}.out`), got);
    return { sampleError: decodeError(test, pattern, queries, table, got) };
  });
}

/** Relative error of the last head of the last sequence, against sums in f64. */
function decodeError({ dtype, batch, queryHeads, kvHeads, headDim, context, pageSize }, pattern, queries, table, got) {
  const [b, h, kvHead] = [batch - 1, queryHeads - 1, kvHeads - 1];
  const at = (b * queryHeads + h) * headDim;
  const slot = (t) => (table[(b * context + t - (t % pageSize)) / pageSize] * kvHeads + kvHead) * pageSize + (t % pageSize);
  const scale = (place, offset) => (dtype === "i8" ? scaleAt(offset + place) : 1);
  const logits = new Float64Array(context);
  for (let t = 0; t < context; t++) {
    const place = slot(t);
    for (let i = 0; i < headDim; i++) logits[t] += queries[at + i] * pattern.at(place * headDim + i);
    logits[t] *= scale(place, 0) / Math.sqrt(headDim);
  }
  const most = logits.reduce((a, x) => Math.max(a, x));
  const sums = new Float64Array(headDim);
  let weights = 0;
  for (let t = 0; t < context; t++) {
    const place = slot(t);
    const weight = Math.exp(logits[t] - most);
    weights += weight;
    for (let i = 0; i < headDim; i++) sums[i] += weight * scale(place, valueOffset) * pattern.at(valueOffset + place * headDim + i);
  }
  let [wrong, size] = [0, 0];
  for (let i = 0; i < headDim; i++) {
    const want = sums[i] / weights;
    wrong += (got[at + i] - want) ** 2;
    size += want ** 2;
  }
  return Math.sqrt(wrong / size);
}

async function measureScan(test) {
  const { dtype, count, dim, batch, k } = test;
  const pattern = patternOf(test);
  const queries = queriesOf(batch * dim, 1);
  const fill = async (alloc, copy) => {
    const inputs = { queries: alloc("queries").upload(queries), rows: alloc("rows") };
    await pattern.upload(inputs.rows, count * dim, copy * copyOffset);
    if (dtype === "i8") inputs.rowScale = alloc("rowScale").upload(scalesOf(count, 0));
    return { inputs, results: { ids: alloc("ids"), scores: alloc("scores"), found: alloc("found") } };
  };
  return measure(test, scan, { batch, count, dim, k }, { rows: dtype, metric: "ip" }, fill, async (outputs) => {
    const ids = await outputs.ids.download();
    const scores = await outputs.scores.download();
    writeFileSync(join(folder, `${test.name}.${id}.ids`), ids);
    writeFileSync(join(folder, `${test.name}.${id}.scores`), scores);
    return { sampleError: scanError(test, pattern, queries, ids, scores) };
  });
}

/** The largest relative error of the first query's scores, against sums in f64; Infinity where a row of a sample beats them. */
function scanError({ dtype, count, dim, k }, pattern, queries, ids, scores) {
  const score = (row) => {
    let sum = 0;
    for (let i = 0; i < dim; i++) sum += queries[i] * pattern.at(row * dim + i);
    return dtype === "i8" ? sum * scaleAt(row) : sum;
  };
  let worst = 0;
  for (let i = 0; i < k; i++) worst = Math.max(worst, Math.abs(score(ids[i]) / scores[i] - 1));
  const best = new Set(ids.subarray(0, k));
  const least = scores[k - 1] * (1 + 1e-5);
  for (let row = 0; row < Math.min(count, 200_000); row++) if (!best.has(row) && score(row) > least) return Number.MAX_VALUE;
  return best.size === k ? worst : Number.MAX_VALUE;
}

async function timed(steps) {
  for (const step of steps) {
    step.run();
    await step.done();
  }
  const times = [];
  for (const end = performance.now() + seconds * 1e3; times.length < 5 || (times.length < 200 && performance.now() < end); )
    times.push(await steps[times.length % steps.length].time());
  times.sort((a, b) => a - b);
  const us = times[times.length >> 1];
  const runs = Math.max(3, Math.min(200, Math.round((seconds * 1e6) / Math.max(us, 1))));
  const began = performance.now();
  for (let i = 0; i < runs; i++) steps[i % steps.length].run();
  for (const step of steps) await step.done();
  return { us, p95Us: times[Math.floor(times.length * 0.95)], runs: times.length, queuedUs: ((performance.now() - began) * 1e3) / runs };
}
