/**
 * `npm run figures`: the figures that the README states, from one run, as ratios; each beside what was
 * aimed at. Peers are checked before they are timed. Takes about four minutes and 3 GB.
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { threadSetting } from "@hotset/core/node";
import { loadMnist } from "@hotset/examples/data";
import { native } from "@hotset/kernels-native";
import { wasm } from "@hotset/kernels-wasm";
import { createHotset, type HostBackend, kvCache, search, toF16, toI8Rows } from "hotset";
import { decodeFigures } from "./figures-decode.js";
import { flatFigures } from "./figures-flat.js";
import { scanPeers } from "./index.js";
import { onnxruntime } from "./peers/onnxruntime.js";
import type { ScanJob, ScanPeer } from "./peers/peer.js";
import { interleaved, median, once } from "./timing.js";

interface Figure {
  readonly name: string;
  readonly reached: string;
  readonly aim: string;
  readonly met: boolean | undefined;
}

const figures: Figure[] = [];
const note = (name: string, value: number, aim: number, unit: "%" | "x", atLeast = true): void => {
  const text = (number: number): string => (unit === "%" ? `${(100 * number).toFixed(0)} %` : `${number.toFixed(2)} x`);
  figures.push({
    name,
    reached: text(value),
    aim: `${atLeast ? "at least" : "at most"} ${text(aim)}`,
    met: atLeast ? value >= aim : value <= aim,
  });
};
const tell = (name: string, reached: string): void => void figures.push({ name, reached, aim: "", met: undefined });

const count = 1_000_000;
const dim = 128;
const k = 10;
const threads = threadSetting();

const rows = values(count * dim, 1);
const half = toF16(rows);
const { data: bytes, scale } = toI8Rows(rows, dim);

await largeScan(native({ threads }));
await realData();
await flatIndex();
await decodeSteps();
await wasmAlone();
await overhead();

const width = Math.max(...figures.map(({ name }) => name.length));
console.log(
  `\nOne run on ${cpus()[0]?.model.trim()}, ${threads} threads, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}\n`,
);
for (const { name, reached, aim, met } of figures)
  console.log(`${met === undefined ? " " : met ? "+" : "-"} ${name.padEnd(width)}  ${reached.padStart(10)}  ${aim}`);
const out = process.argv.indexOf("--out");
if (out > 0)
  writeFileSync(
    process.argv[out + 1] as string,
    `${JSON.stringify({ date: new Date().toISOString(), processor: cpus()[0]?.model.trim(), threads, node: process.version, figures }, null, 2)}\n`,
  );

/** 1M x 128: one query, 6 and 64, against the limits of the machine and OpenBLAS. */
async function largeScan(backend: HostBackend): Promise<void> {
  console.error(`${backend.name}: 1M x 128`);
  const step = await binder(backend);
  const one = step({ batch: 1, rows, dtype: "f32" });
  const six = step({ batch: 6, rows, dtype: "f32" });
  const many = step({ batch: 64, rows, dtype: "f32" });
  const more = step({ batch: 192, rows, dtype: "f32" });
  const oneHalf = step({ batch: 1, rows: half, dtype: "f16" });
  const oneByte = step({ batch: 1, rows: bytes, rowScale: scale, dtype: "i8" });
  const { peers, missing } = scanPeers(threads);
  const blas = peers.find(({ name }) => name.startsWith("OpenBLAS"));
  const job: ScanJob = { batch: 64, count, dim, k, metric: "ip", queries: many.queries, rows };
  const peer = blas && fastest(blas, job, String(many.run().ids));
  // The limits are measured between the rounds, so that both meet the same machine.
  const reads: number[] = [];
  const madds: number[] = [];
  const limits = () => {
    reads.push(backend.probe({ kind: "read", bytes: 1 << 30 }));
    madds.push(backend.probe({ kind: "madd" }));
  };
  const runs = [one, six, oneHalf, oneByte, many, more].map((bound) => () => bound.run());
  const times: number[][] = [...runs, peer ?? (() => {})].map(() => []);
  for (let part = 0; part < 3; part++) {
    limits();
    for (const [i, list] of interleaved([...runs, peer ?? (() => {})], 4).entries()) times[i]?.push(...list);
  }
  const [t1, t6, tHalf, tByte, t64, t192, tBlas] = times.map(median) as [number, number, number, number, number, number, number];
  const read = median(reads);
  const madd = median(madds);
  tell(`${backend.name}: read bandwidth, multiply-add peak`, `${read.toFixed(1)} GB/s, ${madd.toFixed(0)} GFLOP/s`);
  note("one f32 query over 1M x 128: share of read bandwidth", (count * dim * 4) / t1 / 1e6 / read, 0.85, "%");
  note("batch of 64: share of the multiply-add peak", (2 * 64 * count * dim) / t64 / 1e6 / madd, 0.45, "%");
  // The time is a + b * batch: a is reading and packing the rows, b the arithmetic of a query.
  const perQuery = (t192 - t64) / 128;
  tell(
    "batch of 64: reading and packing the rows, apart from the arithmetic",
    `${(t64 - 64 * perQuery).toFixed(1)} of ${t64.toFixed(1)} ms`,
  );
  if (blas && peer) {
    note(`batch of 64 against ${blas.name} (${blas.version.split(" ").slice(0, 2).join(" ")}, ${blas.settings})`, tBlas / t64, 1, "x");
  } else for (const reason of missing) tell("not compared", reason);
  note("batch of 6: rate over that of single queries", (6 * t1) / t6, 4, "x");
  note("one query: f16 rows over f32 rows", t1 / tHalf, 1.7, "x");
  note("one query: i8 rows over f32 rows", t1 / tByte, 3, "x");
}

/** MNIST, one thread: usearch and a plain loop. */
async function realData(): Promise<void> {
  console.error("MNIST 60,000 x 784, one thread");
  const { train, test, pixels } = await loadMnist();
  const batch = 8;
  const data = Float32Array.from(train);
  const queries = Float32Array.from(test.subarray(0, batch * pixels));
  const backend = native({ threads: 1 });
  const hotset = await createHotset({ backends: [backend] });
  const axes = { batch, count: train.length / pixels, dim: pixels, k };
  const bound = hotset.planSync(search.scan, axes, { rows: "f32", metric: "l2" }, { backend: "native" }).bind({ queries, rows: data });
  const single = hotset
    .planSync(search.scan, { ...axes, batch: 1 }, { rows: "f32", metric: "l2" }, { backend: "native" })
    .bind({ queries: queries.slice(0, pixels), rows: data });
  const ours = String(bound.run().ids);
  const { peers, missing } = scanPeers(1);
  for (const reason of missing) if (!reason.startsWith("OpenBLAS")) tell("not compared", reason);
  const job: ScanJob = { ...axes, metric: "l2", queries, rows: data };
  const aims = [
    { peer: peers.find(({ name }) => name.includes("usearch")), aim: 2 },
    { peer: peers.find(({ name }) => name.includes("plain")), aim: 8 },
  ].filter((entry): entry is { peer: ScanPeer; aim: number } => entry.peer !== undefined);
  const runs = aims.map(({ peer }) => fastest(peer, job, ours));
  const [tOurs, tSingle, ...theirs] = interleaved([() => bound.run(), () => single.run(), ...runs], 5).map(median) as [
    number,
    number,
    ...number[],
  ];
  for (const [i, { peer, aim }] of aims.entries()) {
    const time = theirs[i] as number;
    note(`MNIST, ${batch} queries, one thread: over ${peer.name} ${peer.version} (${peer.settings})`, time / tOurs, aim, "x");
    note(`the same, one query at a time: over ${peer.name}`, time / batch / tSingle, aim, "x");
  }
}

/** GloVe, one thread: certified search of an index against usearch and a plain loop. */
async function flatIndex(): Promise<void> {
  console.error("FlatIndex: GloVe 100,000 x 100, one thread");
  const { compared, different, survivors, fallbacks, ms, scanMs, peers } = await flatFigures();
  const name = "FlatIndex, GloVe 100,000 x 100, cosine, one thread, one query at a time";
  figures.push({
    name: `${name}: answers that differ from brute force`,
    reached: `${different} of ${compared}`,
    aim: "at most 0",
    met: different === 0,
  });
  tell(`${name}: rows scored exactly a query, fallbacks`, `${survivors.toFixed(1)}, ${fallbacks}`);
  tell(`${name}: over search/scan of the f32 rows`, `${(scanMs / ms).toFixed(2)} x`);
  for (const peer of peers) note(`${name}: over ${peer.name}`, peer.ms / ms, peer.name.startsWith("usearch") ? 3.5 : 8, "x");
}

/** One decode step over 16384 tokens, in one piece and in pages of 16. */
async function decodeSteps(): Promise<void> {
  console.error("attention/decode: 32/8 heads x 128, 16384 tokens");
  const backend = native({ threads });
  const aims = { f32: 0.8, f16: 0.55, i8: undefined };
  const peer = await onnxruntime(threads);
  if (typeof peer === "string") tell("not compared", peer);
  const steps = await decodeFigures(backend, 16384, typeof peer === "string" ? undefined : peer);
  for (const { dtype, ms, share, error, peerMs } of steps) {
    const name = `decode of 16384 tokens, 32/8 heads x 128, ${dtype} cache`;
    const aim = aims[dtype];
    if (aim === undefined) tell(`${name}: share of its nearer limit`, `${(100 * share).toFixed(0)} % (${ms.toFixed(2)} ms)`);
    else note(`${name}: share of its nearer limit`, share, aim, "%");
    figures.push({ name: `${name}: relative error`, reached: error.toExponential(1), aim: "under 1.0e-3", met: error < 1e-3 });
    if (peerMs && typeof peer !== "string")
      note(`${name}: over ${peer.name} ${peer.version} (${peer.settings})`, peerMs / ms, dtype === "f32" ? 4 : 6, "x");
  }
  const [, half, byte] = steps;
  if (half && byte) note("the same: i8 cache over f16 cache", half.ms / byte.ms, 1, "x");
  for (const { dtype, ms, share } of await decodeFigures(backend, 16))
    tell(`the same in pages of 16 in random order, ${dtype} cache`, `${(100 * share).toFixed(0)} % (${ms.toFixed(2)} ms)`);
  const one = await wasm({ build: "simd", threads: 1 });
  for (const { dtype, ms, share } of await decodeFigures(one, 16384)) {
    const name = `wasm simd, one thread: the same, ${dtype} cache: share of its nearer limit`;
    if (dtype === "f16") tell(name, `${(100 * share).toFixed(0)} % (${ms.toFixed(1)} ms)`);
    else note(name, share, 0.7, "%");
  }
  one.dispose();
}

/** wasm simd on one thread, against what wasm can reach here. */
async function wasmAlone(): Promise<void> {
  const backend = await wasm({ build: "simd", threads: 1 });
  console.error(`${backend.name}: 500k x 128`);
  const step = await binder(backend, 500_000);
  const f32 = step({ batch: 1, rows: rows.subarray(0, 500_000 * dim), dtype: "f32" });
  const many = step({ batch: 16, rows: rows.subarray(0, 500_000 * dim), dtype: "f32" });
  const i8 = step({ batch: 1, rows: bytes.subarray(0, 500_000 * dim), rowScale: scale.subarray(0, 500_000), dtype: "i8" });
  const reads: number[] = [];
  const madds: number[] = [];
  const dots: number[] = [];
  const times: number[][] = [[], [], []];
  for (let part = 0; part < 3; part++) {
    reads.push(backend.probe({ kind: "read", bytes: 512 << 20 }));
    madds.push(backend.probe({ kind: "madd" }));
    dots.push(backend.probe({ kind: "madd-i8" }));
    for (const [i, list] of interleaved(
      [f32, i8, many].map((bound) => () => bound.run()),
      4,
    ).entries())
      times[i]?.push(...list);
  }
  const [t32, t8, tMany] = times.map(median) as [number, number, number];
  const [read, madd, dots8] = [median(reads), median(madds), median(dots)];
  const work = 500_000 * dim;
  tell(
    `${backend.name}: read bandwidth, multiply-add and i8 peak`,
    `${read.toFixed(1)} GB/s, ${madd.toFixed(0)} GFLOP/s, ${dots8.toFixed(0)} Gop/s`,
  );
  note("wasm, one f32 query: share of its nearer limit", Math.max((4 * work) / t32 / 1e6 / read, (2 * work) / t32 / 1e6 / madd), 0.7, "%");
  note("wasm, one i8 query: share of its nearer limit", Math.max(work / t8 / 1e6 / read, (2 * work) / t8 / 1e6 / dots8), 0.7, "%");
  tell("wasm, batch of 16: share of the multiply-add peak", `${((100 * 2 * 16 * work) / tMany / 1e6 / madd).toFixed(0)} %`);
  backend.dispose();
}

/** Calls on no work: what a step and a one-call form cost. */
async function overhead(): Promise<void> {
  const backends = [native({ threads }), await wasm({ threads })];
  const hotset = await createHotset({ backends });
  for (const { id } of hotset.backends) {
    const plan = hotset.planSync(kvCache.poolApply, { blocks: 8, count: 1 }, {}, { backend: id });
    const step = plan.bind({ state: plan.alloc("state"), commands: plan.alloc("commands") }, { results: plan.alloc("results") });
    step.set("count", 0);
    const bound = perCall(() => step.run(), 200_000);
    figures.push({
      name: `${id}: a bound step on empty work`,
      reached: `${bound.toFixed(3)} us`,
      aim: "at most 0.5 us",
      met: bound <= 0.5,
    });
    const state = new Uint32Array(8 + 3 * 8);
    const commands = new Uint32Array(2);
    const call = await perAsyncCall(() => hotset.call(kvCache.poolApply, { state, commands, blocks: 8, backend: id }), 20_000);
    figures.push({
      name: `${id}: a one-call form on one command`,
      reached: `${call.toFixed(2)} us`,
      aim: "at most 10 us",
      met: call <= 10,
    });
  }
  hotset.dispose();
}

function perCall(run: () => unknown, calls: number): number {
  const groups = Array.from({ length: 7 }, () =>
    once(() => {
      for (let i = 0; i < calls; i++) run();
    }),
  );
  return (1e3 * median(groups)) / calls;
}

async function perAsyncCall(run: () => Promise<unknown>, calls: number): Promise<number> {
  const groups: number[] = [];
  for (let group = 0; group < 7; group++) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) await run();
    groups.push(performance.now() - start);
  }
  return (1e3 * median(groups)) / calls;
}

/** The peer's fastest way to do the job, after its answer was checked. */
function fastest(peer: ScanPeer, job: ScanJob, expected: string): () => unknown {
  const ways = peer.ways(job).map((way) => {
    const { ids } = way();
    // Its scores are f32 sums: neighbours that are equal within rounding may change places.
    const other = [...ids].filter((id, i) => String(id) !== expected.split(",")[i]).length;
    if (other > ids.length / 50) throw new Error(`${peer.name} gives other results: ${other} of ${ids.length}`);
    return { way, ms: Math.min(once(way), once(way)) };
  });
  return ways.sort((a, b) => a.ms - b.ms)[0]?.way as () => unknown;
}

interface Ask {
  readonly batch: number;
  readonly rows: Float32Array | Uint16Array | Int8Array;
  readonly rowScale?: Float32Array;
  readonly dtype: "f32" | "f16" | "i8";
}

/** Binds inner-product scans in a backend's own memory. */
async function binder(backend: HostBackend, n = count) {
  const hotset = await createHotset({ backends: [backend] });
  return ({ batch, rows: data, rowScale, dtype }: Ask) => {
    const plan = hotset.planSync(search.scan, { batch, count: n, dim, k }, { rows: dtype, metric: "ip" }, { backend: backend.id });
    const queries = values(batch * dim, 77);
    // A host array of that size is read in place by native; wasm needs its own copy.
    let resident: unknown = { data, dtype };
    if (!backend.inPlace) {
      const tensor = plan.alloc("rows");
      (tensor.data as Float32Array).set(data);
      resident = tensor;
    }
    const step = plan.bind({ queries, rows: resident, ...(rowScale ? { rowScale } : {}) } as never);
    return { queries, run: () => step.run() as { ids: Int32Array } };
  };
}

function values(length: number, seed: number): Float32Array {
  const out = new Float32Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    out[i] = state / 2 ** 31 + ((state << 11) >> 23) / 256;
  }
  return out;
}
