/**
 * FlatIndex on GloVe's first 100,000 words x 100, cosine, one thread, one query at a time: against usearch's exactSearch and
 * a plain loop, after every answer was compared with brute force. `node bench/dist/figures-flat.js` prints this alone.
 */
import { pathToFileURL } from "node:url";
import { loadWords } from "@hotset/examples/data";
import { native } from "@hotset/kernels-native";
import { wasm } from "@hotset/kernels-wasm";
import { createHotset, type HostBackend, search } from "hotset";
import { scanPeers } from "./index.js";
import type { ScanJob, ScanPeer } from "./peers/peer.js";
import { interleaved, median } from "./timing.js";

const count = 100_000;
const k = 10;
const asked = 200;
/** Queries of one measurement: long enough to be timed, short enough that all contestants meet the same machine. */
const group = 20;

export interface FlatFigures {
  /** Queries compared with brute force, and those whose ids or scores differ in a bit. */
  readonly compared: number;
  readonly different: number;
  readonly survivors: number;
  readonly fallbacks: number;
  /** Milliseconds a query. */
  readonly ms: number;
  readonly scanMs: number;
  readonly wasmMs: number;
  readonly peers: readonly { readonly name: string; readonly ms: number; readonly disagreeing: number; readonly ids: number }[];
  readonly missing: readonly string[];
}

export async function flatFigures(): Promise<FlatFigures> {
  const { dim, vectors } = await loadWords();
  const rows = vectors.slice(0, count * dim);
  // Words that are not in the index, from all over the rest of the list.
  const queries = new Float32Array(asked * dim);
  const stride = Math.floor((vectors.length / dim - count) / asked);
  for (let q = 0; q < asked; q++) queries.set(vectors.subarray((count + q * stride) * dim, (count + q * stride + 1) * dim), q * dim);
  const query = (q: number): Float32Array => queries.slice((q % asked) * dim, ((q % asked) + 1) * dim);

  const backend = native({ threads: 1 });
  const small = await wasm({ build: "simd", threads: 1 });
  const index = await filled(backend, rows, dim);
  const onWasm = await filled(small, rows, dim);
  const expected = await bruteForce(rows, queries, dim);
  let different = 0;
  for (const one of [index, onWasm])
    for (let q = 0; q < asked; q++) {
      const [hit] = one.search(query(q), { k });
      if (!hit || String(hit.ids) !== expected.ids(q) || String(hit.scores) !== expected.scores(q)) different++;
    }
  const { survivors, fallbacks } = index.counters;

  const { peers, missing } = scanPeers(1);
  const contestants = peers.filter(({ name }) => !name.startsWith("OpenBLAS"));
  const job = (from: number, batch: number): ScanJob => ({
    batch,
    count,
    dim,
    k,
    metric: "cos",
    queries: queries.slice(from * dim, (from + batch) * dim),
    rows,
  });
  const disagreeing = contestants.map((peer) => {
    const { ids } = (peer.ways(job(0, 2 * group))[0] as () => { ids: Int32Array })();
    let wrong = 0;
    for (let q = 0; q < 2 * group; q++) {
      const right = new Set(expected.ids(q).split(","));
      for (const id of ids.subarray(q * k, (q + 1) * k)) if (!right.has(String(id))) wrong++;
    }
    // Sums in another order may swap neighbours at the end of a list.
    if (wrong > (2 * group * k) / 50) throw new Error(`${peer.name} gives other results: ${wrong} of ${2 * group * k}`);
    return wrong;
  });

  const hotset = await createHotset({ backends: [backend] });
  const plan = hotset.planSync(search.scan, { batch: 1, count, dim, k }, { rows: "f32", metric: "cos" }, { backend: "native" });
  const own = query(0);
  const step = plan.bind({ queries: own, rows });
  let at = 0;
  const searchGroup = (one: search.FlatIndex) => () => {
    for (let i = 0; i < group; i++) one.search(query(at++), { k });
  };
  const scanGroup = () => {
    for (let i = 0; i < group; i++) {
      own.set(query(at++));
      step.run();
    }
  };
  const [ours, scan, wasmTimes, ...theirs] = interleaved(
    [searchGroup(index), scanGroup, searchGroup(onWasm), ...contestants.map((peer) => fastest(peer, job))],
    7,
  ).map((times) => median(times) / group) as [number, number, number, ...number[]];
  onWasm.dispose();
  small.dispose();
  index.dispose();
  return {
    compared: 2 * asked,
    different,
    survivors: survivors / asked,
    fallbacks,
    ms: ours,
    scanMs: scan,
    wasmMs: wasmTimes,
    peers: contestants.map(({ name, version, settings }, i) => ({
      name: `${name} ${version} (${settings})`,
      ms: theirs[i] as number,
      disagreeing: disagreeing[i] as number,
      ids: 2 * group * k,
    })),
    missing,
  };
}

async function filled(backend: HostBackend, rows: Float32Array, dim: number): Promise<search.FlatIndex> {
  const index = await search.FlatIndex.create({ dim, hotset: await createHotset({ backends: [backend] }), backend: backend.id });
  index.add(rows);
  return index;
}

/** Every query against every row, by the reference in plain JavaScript. */
async function bruteForce(rows: Float32Array, queries: Float32Array, dim: number) {
  const hotset = await createHotset();
  const { ids, scores } = await hotset.call(search.scan, { queries, rows, dim, k, metric: "cos", backend: "js" });
  return {
    ids: (q: number) => String(ids.subarray(q * k, (q + 1) * k)),
    scores: (q: number) => String(scores.subarray(q * k, (q + 1) * k)),
  };
}

/** A group of queries in the peer's fastest way: one at a time, or all in one call. */
function fastest(peer: ScanPeer, job: (from: number, batch: number) => ScanJob): () => unknown {
  const single = Array.from({ length: group }, (_, q) => peer.ways(job(q, 1))[0] as () => unknown);
  const together = peer.ways(job(0, group))[0] as () => unknown;
  const oneByOne = (): void => {
    for (const run of single) run();
  };
  const ways = [oneByOne, together];
  const [one, all] = interleaved(ways, 2).map((times) => Math.min(...times)) as [number, number];
  return ways[one <= all ? 0 : 1] as () => unknown;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { compared, different, survivors, fallbacks, ms, scanMs, wasmMs, peers, missing } = await flatFigures();
  const perSecond = (time: number): string => `${time.toFixed(3)} ms, ${(1e3 / time).toFixed(0)} a second`;
  console.log(`GloVe ${count} x 100, cosine, k ${k}, one thread, one query at a time; medians of 7 interleaved groups of ${group}`);
  console.log(`${compared} answers against brute force: ${different} differ in an id or a bit of a score`);
  console.log(`FlatIndex, native  ${perSecond(ms)}; ${survivors.toFixed(1)} rows scored exactly a query, ${fallbacks} fallbacks`);
  console.log(`FlatIndex, wasm    ${perSecond(wasmMs)}`);
  console.log(`search/scan, f32   ${perSecond(scanMs)}: ${(scanMs / ms).toFixed(2)} times ours`);
  for (const peer of peers)
    console.log(
      `${peer.name}  ${perSecond(peer.ms)}: ${(peer.ms / ms).toFixed(2)} times ours; ${peer.disagreeing} of ${peer.ids} ids differ`,
    );
  for (const reason of missing) console.log(`not compared: ${reason}`);
}
