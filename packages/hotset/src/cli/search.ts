/** `hotset search build` and `hotset search query`: an index from a file of vectors, and searches in it. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { HotsetError, search } from "@hotset/core";
import { openIndex, saveIndex } from "@hotset/core/node";
import { findHotset } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { print, progress, table } from "./output.js";
import { readVectors, type VectorFile } from "./vectors.js";

interface BuildOptions extends CommonOptions {
  readonly kind: string;
  readonly metric: "cos" | "ip" | "l2";
  readonly dtype: "f32" | "f16" | "i8";
  readonly out: string;
  readonly ids?: string;
  readonly tensor?: string;
  readonly backend?: string;
}

/** Rows added at once, between two steps of the progress bar. */
const chunk = 4096;

export async function build(path: string, options: BuildOptions): Promise<void> {
  const { kind, metric, dtype, out, ids: idFile, tensor, backend, json } = options;
  const { rows, dim, values } = readVectors(path, tensor);
  const names = idFile === undefined ? undefined : readIds(idFile, rows);
  const hotset = await findHotset();
  const start = performance.now();
  const index = new search.FlatIndex(hotset, { dim, metric, dtype, capacity: rows, ...(backend ? { backend } : {}) });
  const bar = progress(json);
  try {
    for (let at = 0; at < rows; at += chunk) {
      bar.step(at, rows, "rows");
      const end = Math.min(rows, at + chunk);
      index.add(values.subarray(at * dim, end * dim) as search.Vectors, names?.slice(at, end));
    }
  } finally {
    bar.stop();
  }
  saveIndex(index, out);
  const seconds = (performance.now() - start) / 1e3;
  const document = { out, kind, metric, dtype, rows, dim, bytes: statSync(out).size, seconds };
  print(
    json,
    document,
    () => `${out}: ${rows} vectors of ${dim} as ${dtype}, ${metric}, ${(document.bytes / 1e6).toFixed(1)} MB, in ${seconds.toFixed(1)} s`,
  );
  index.dispose();
  hotset.dispose();
}

interface QueryOptions extends CommonOptions {
  readonly k: string;
  readonly truth?: string;
  readonly batch: string;
  readonly tensor?: string;
  readonly backend?: string;
  readonly out?: string;
}

export async function query(path: string, queryPath: string, options: QueryOptions): Promise<void> {
  const { truth: truthPath, tensor, backend, out, json } = options;
  const k = whole("-k", options.k, 1024);
  const batch = whole("--batch", options.batch, 65536);
  const hotset = await findHotset();
  const index = await openIndex(path, { hotset, ...(backend ? { backend } : {}) });
  const { rows: count, dim, values } = readVectors(queryPath, tensor);
  if (dim !== index.dim)
    throw new HotsetError("argument", {
      where: queryPath,
      expected: `vectors of ${index.dim}, as in ${path}`,
      received: `vectors of ${dim}`,
    });
  if (count === 0) throw new HotsetError("argument", { where: queryPath, expected: "at least one query", received: "none" });
  const truth = truthPath === undefined ? undefined : readTruth(truthPath, count, k, index);
  const ask = (from: number): search.Hit[] =>
    index.search(values.subarray(from * dim, Math.min(count, from + batch) * dim) as search.Vectors, { k });
  // The first search makes plans.
  ask(0);
  const before = index.counters;
  const latencies: number[] = [];
  const hits: search.Hit[] = [];
  const bar = progress(json);
  try {
    for (let from = 0; from < count; from += batch) {
      if (from % (64 * batch) === 0) bar.step(from, count, "queries");
      const start = performance.now();
      const found = ask(from);
      latencies.push(performance.now() - start);
      hits.push(...found);
    }
  } finally {
    bar.stop();
  }
  const seconds = latencies.reduce((sum, ms) => sum + ms, 0) / 1e3;
  const sorted = latencies.sort((a, b) => a - b);
  const percentile = (share: number): number => 1e3 * (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] as number);
  const counters = { ...index.counters };
  for (const name of Object.keys(counters) as (keyof search.SearchCounters)[]) counters[name] -= before[name];
  const document = {
    index: path,
    rows: index.size,
    dim,
    metric: index.metric,
    dtype: index.dtype,
    backend: index.backend,
    queries: count,
    k,
    batch,
    recall: truth ? recallOf(hits, truth, k) : null,
    queriesPerSecond: count / seconds,
    latencyUs: { p50: percentile(0.5), p95: percentile(0.95), p99: percentile(0.99) },
    counters,
  };
  if (out !== undefined) writeFileSync(out, `${JSON.stringify(hits.map(({ ids, scores }) => ({ ids, scores: [...scores] })))}\n`);
  print(json, document, () => {
    const { recall, queriesPerSecond, latencyUs } = document;
    return table([
      ["recall", recall === null ? "not asked (--truth)" : recall.toFixed(4)],
      ["queries a second", queriesPerSecond.toFixed(0)],
      [
        "microseconds a call",
        `${latencyUs.p50.toFixed(0)} (median), ${latencyUs.p95.toFixed(0)} (95 %), ${latencyUs.p99.toFixed(0)} (99 %)`,
      ],
      ["backend", index.backend],
      [
        "searches",
        Object.entries(counters)
          .map(([name, value]) => `${name} ${value}`)
          .join(", "),
      ],
    ]);
  });
  index.dispose();
  hotset.dispose();
}

/** One id a line. */
function readIds(path: string, rows: number): string[] {
  const lines = readFileSync(path, "utf8").split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  if (lines.length !== rows)
    throw new HotsetError("argument", { where: path, expected: `${rows} lines, an id for each vector`, received: `${lines.length}` });
  return lines;
}

function readTruth(path: string, count: number, k: number, index: search.FlatIndex): VectorFile {
  const truth = readVectors(path);
  if (truth.rows !== count || truth.dim < Math.min(k, index.size))
    throw new HotsetError("argument", {
      where: path,
      expected: `at least ${k} row numbers for each of ${count} queries`,
      received: `[${truth.rows}, ${truth.dim}]`,
    });
  const [first] = index.ids();
  if (typeof first === "string")
    throw new HotsetError("argument", {
      where: path,
      expected: "an index whose ids are row numbers",
      received: "one whose ids are strings",
    });
  return truth;
}

/** The share of the true k nearest that were found. */
function recallOf(hits: readonly search.Hit[], { values, dim }: VectorFile, k: number): number {
  let [found, wanted] = [0, 0];
  for (const [q, { ids }] of hits.entries()) {
    const truth = new Set(values.subarray(q * dim, q * dim + k));
    wanted += truth.size;
    for (const id of ids) if (truth.has(id as number)) found++;
  }
  return wanted === 0 ? 1 : found / wanted;
}

function whole(flag: string, text: string, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > most)
    throw new HotsetError("argument", {
      where: "search query",
      expected: `${flag} to be a whole number from 1 to ${most}`,
      received: JSON.stringify(text),
    });
  return value;
}
