/** usearch's exactSearch: the brute-force search of the package most people take for vectors in Node. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { ScanJob, ScanPeer, ScanResult } from "./peer.js";

interface Usearch {
  exactSearch(
    dataset: Float32Array | Int8Array,
    queries: Float32Array | Int8Array,
    dimensions: number,
    count: number,
    metric: string,
    threads: number,
  ): { keys: BigUint64Array; distances: Float32Array };
}

export function usearch(threads: number): ScanPeer | string {
  const require = createRequire(import.meta.url);
  let module: Usearch;
  let version: string;
  try {
    module = require("usearch") as Usearch;
    version = versionAbove(require.resolve("usearch"));
  } catch (error) {
    return `usearch: ${(error as Error).message.split("\n")[0]}`;
  }
  return {
    name: "usearch exactSearch",
    version,
    settings: `${threads} thread(s)`,
    supports: ({ rows }) => (rows instanceof Float32Array ? true : "f32 rows only: its i8 vectors have no scales"),
    ways: (job) => [() => run(module, job, threads)],
  };
}

function run(module: Usearch, { queries, rows, dim, k, metric, batch }: ScanJob, threads: number): ScanResult {
  const names = { cos: "cos", ip: "ip", l2: "l2sq" } as const;
  const { keys, distances } = module.exactSearch(rows, queries, dim, k, names[metric], threads);
  const ids = Int32Array.from(keys.subarray(0, batch * k), Number);
  // Its distances are 1 - cos and 1 - ip.
  return { ids, scores: metric === "l2" ? distances : distances.map((distance) => 1 - distance) };
}

/** Its package.json is not exported: it is the nearest one above the file that is. */
function versionAbove(file: string): string {
  for (let folder = dirname(file); dirname(folder) !== folder; folder = dirname(folder)) {
    try {
      const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name?: string; version?: string };
      if (name === "usearch" && version) return version;
    } catch {
      // Not here.
    }
  }
  return "of unknown version";
}
