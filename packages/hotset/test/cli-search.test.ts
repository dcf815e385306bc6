import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Random } from "@hotset/core/testing/cases";
import { afterAll, describe, expect, it } from "vitest";
import { bruteForce } from "../../core/test/flat-index-data.js";
import { npy, texmex } from "./vector-files.js";

const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hotset-search-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);

function hotset(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, "search", ...args], {
    encoding: "utf8",
    env: { ...process.env, HOTSET_CACHE_DIR: folder },
    timeout: 120_000,
  });
  return { status, stdout, stderr };
}
const json = (...args: readonly string[]) => JSON.parse(hotset(...args, "--json").stdout);

const [rows, dim, k, count] = [3000, 20, 5, 30];
const random = new Random("search command");
const vectors = random.values(rows * dim, () => random.normal());
const queries = random.values(count * dim, () => random.normal());
writeFileSync(at("vectors.fvecs"), texmex(vectors, dim));
writeFileSync(at("queries.npy"), npy("<f4", [count, dim], queries));
const expected = await bruteForce("l2", "f32", vectors, dim, queries, k);
const truth = Int32Array.from(expected.flatMap((hit) => hit.rows));
writeFileSync(at("truth.ivecs"), texmex(truth, k));

describe("hotset search", () => {
  it("builds an index and searches it: the true neighbours, all of them", () => {
    const built = json("build", at("vectors.fvecs"), "--kind", "flat", "--metric", "l2", "--dtype", "f32", "--out", at("a.index"));
    expect(built).toMatchObject({ rows, dim, metric: "l2", dtype: "f32", kind: "flat", out: at("a.index") });
    expect(built.bytes).toBe(readFileSync(at("a.index")).length);
    const asked = json("query", at("a.index"), at("queries.npy"), "-k", `${k}`, "--truth", at("truth.ivecs"), "--out", at("hits.json"));
    expect(asked).toMatchObject({ rows, dim, k, queries: count, recall: 1, metric: "l2" });
    expect(asked.queriesPerSecond).toBeGreaterThan(0);
    expect(asked.latencyUs.p99).toBeGreaterThanOrEqual(asked.latencyUs.p50);
    expect(asked.counters.queries).toBe(count);
    const hits = JSON.parse(readFileSync(at("hits.json"), "utf8"));
    expect(hits).toEqual(expected.map((hit) => ({ ids: hit.rows, scores: hit.scores })));
    const wrong = truth.map((row, i) => (i % k === 0 ? (row + 1) % rows : row));
    writeFileSync(at("wrong.ivecs"), texmex(wrong, k));
    expect(json("query", at("a.index"), at("queries.npy"), "-k", `${k}`, "--truth", at("wrong.ivecs")).recall).toBeLessThan(0.9);
  });

  it("says it in words, in batches, with ids from a file, on a named backend", () => {
    writeFileSync(at("ids.txt"), `${Array.from({ length: rows }, (_, i) => `word ${i}`).join("\n")}\n`);
    const built = hotset("build", at("vectors.fvecs"), "--dtype", "i8", "--ids", at("ids.txt"), "--out", at("b.index"));
    expect([built.status, built.stdout]).toEqual([0, expect.stringMatching(/b\.index: 3000 vectors of 20 as i8, cos, 0\.\d MB, in /)]);
    const asked = hotset("query", at("b.index"), at("queries.npy"), "--batch", "8", "--backend", "js", "--out", at("words.json"));
    expect(asked.stdout).toMatch(/recall +not asked[\s\S]*queries a second +\d+[\s\S]*backend +js/);
    expect(JSON.parse(readFileSync(at("words.json"), "utf8"))[0].ids[0]).toMatch(/^word \d+$/);
    expect(hotset("query", at("b.index"), at("queries.npy"), "-k", `${k}`, "--truth", at("truth.ivecs")).stderr).toMatch(
      /row numbers .* strings/,
    );
  });

  it("refuses what it cannot use, in one line, and leaves nothing behind", () => {
    const refused = (message: RegExp, ...args: readonly string[]) => {
      const { status, stdout, stderr } = hotset(...args);
      expect([status === 0, stdout]).toEqual([false, ""]);
      expect(stderr.trim()).toMatch(message);
      expect(stderr.trim().split("\n").length).toBeLessThanOrEqual(3);
    };
    writeFileSync(at("cut.fvecs"), texmex(vectors.slice(0, 5 * dim), dim).slice(0, -3));
    refused(/cut\.fvecs: expected whole records/, "build", at("cut.fvecs"), "--out", at("c.index"));
    const bad = vectors.slice(0, 3 * dim);
    bad[dim + 2] = Number.NaN;
    writeFileSync(at("nan.fvecs"), texmex(bad, dim));
    refused(/finite numbers .* NaN in row 1, component 2/, "build", at("nan.fvecs"), "--out", at("c.index"));
    expect(existsSync(at("c.index"))).toBe(false);
    refused(
      /--kind .*'graph' is invalid. Allowed choices are flat/,
      "build",
      at("vectors.fvecs"),
      "--kind",
      "graph",
      "--out",
      at("c.index"),
    );
    refused(/required option '--out/, "build", at("vectors.fvecs"));
    refused(/HOTSETIX/, "query", at("vectors.fvecs"), at("queries.npy"));
    writeFileSync(at("d.index"), readFileSync(at("b.index")).subarray(0, 5000));
    refused(/d\.index: expected \d+ bytes/, "query", at("d.index"), at("queries.npy"));
    writeFileSync(at("wide.npy"), npy("<f4", [2, dim + 1], new Float32Array(2 * dim + 2)));
    refused(/vectors of 20, as in .* but received vectors of 21/, "query", at("b.index"), at("wide.npy"));
    refused(/-k to be a whole number/, "query", at("b.index"), at("queries.npy"), "-k", "0");
    refused(
      /at least 10 row numbers for each of 30 queries but received \[30, 5\]/,
      "query",
      at("b.index"),
      at("queries.npy"),
      "--truth",
      at("truth.ivecs"),
    );
  });
});
