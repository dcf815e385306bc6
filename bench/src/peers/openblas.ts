/** OpenBLAS, where it is installed (Debian: libopenblas0-pthread): the product of queries and rows, then top-k. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ScanJob, ScanPeer, ScanResult } from "./peer.js";

interface Addon {
  open(path: string): string | undefined;
  search(
    queries: Float32Array,
    batch: number,
    rows: Float32Array,
    count: number,
    dim: number,
    k: number,
    threads: number,
    split: number,
    block: number,
    ids: Int32Array,
    scores: Float32Array,
  ): void;
}

const folder = fileURLToPath(new URL("../../", import.meta.url));

/** Builds the addon where its source is newer. Returns the peer, or why it cannot run here. */
export function openblas(threads: number): ScanPeer | string {
  const file = join(folder, "build", "blas.node");
  const source = join(folder, "native", "blas.cc");
  if (!existsSync(file) || statSync(file).mtimeMs < statSync(source).mtimeMs) {
    mkdirSync(dirname(file), { recursive: true });
    const require = createRequire(import.meta.url);
    const { include_dir: headers } = require("node-api-headers") as { include_dir: string };
    const built = spawnSync(
      "c++",
      ["-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", `-I${headers}`, source, "-o", file, "-ldl", "-pthread"],
      { encoding: "utf8" },
    );
    if (built.status !== 0) return `OpenBLAS: the addon could not be built: ${(built.stderr || String(built.error)).split("\n")[0]}`;
  }
  const addon = createRequire(import.meta.url)(file) as Addon;
  const config = ["libopenblas.so.0", "libopenblas.so"].map((name) => addon.open(name)).find((text) => text !== undefined);
  if (config === undefined) return "OpenBLAS: libopenblas is not installed (Debian: libopenblas0-pthread)";
  return {
    name: "OpenBLAS sgemm + top-k",
    version: config.trim(),
    settings: `${threads} thread(s), the faster of its own threads and rows split over single-threaded calls, blocks of 1024 to 8192 rows`,
    supports: ({ metric, rows }) => (metric === "ip" && rows instanceof Float32Array ? true : "inner product of f32 rows only"),
    ways: (job) => [0, 1].flatMap((split) => [1024, 2048, 4096, 8192].map((block) => way(addon, job, threads, split, block))),
  };
}

function way(
  addon: Addon,
  { queries, rows, batch, count, dim, k }: ScanJob,
  threads: number,
  split: number,
  block: number,
): () => ScanResult {
  const ids = new Int32Array(batch * k);
  const scores = new Float32Array(batch * k);
  return () => {
    addon.search(queries, batch, rows as Float32Array, count, dim, k, threads, split, block, ids, scores);
    return { ids, scores };
  };
}
