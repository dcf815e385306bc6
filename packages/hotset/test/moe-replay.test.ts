import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { moe } from "@hotset/core";
import { afterAll, describe, expect, it } from "vitest";

const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hotset-moe-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function replay(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [command, "moe", "replay", ...args], {
    encoding: "utf8",
    timeout: 240_000,
    env: { ...process.env, HOTSET_CACHE_DIR: folder },
  });
}

const trace = moe.syntheticMoeTrace({ seed: "command", layers: 3, experts: 16, topK: 2, sequences: 6, length: 50 });
const path = join(folder, "a.moetrc.gz");
writeFileSync(path, gzipSync(moe.writeMoeTrace(trace)));

describe("hotset moe replay", () => {
  it("prints one JSON document with what the library counts", () => {
    const { stdout, status } = replay(
      path,
      "--cache",
      "all",
      "--capacity",
      "4,8",
      "--bandwidth",
      "10",
      "--expert-bytes",
      "1000000",
      "--json",
    );
    expect(status).toBe(0);
    const { rows, trace: said } = JSON.parse(stdout);
    expect(said).toMatchObject({ layers: 3, experts: 16, topK: 2, tokens: 300, sequences: 6 });
    expect(rows.length).toBe(2 * moe.retentionPolicies.length);
    for (const row of rows) {
      const wanted = moe.replayMoeTrace(trace, { policy: row.policy, capacity: row.capacity, expertBytes: 1e6, bandwidth: 10 });
      expect(row).toMatchObject({ ...wanted });
      expect(row.missesOverBelady).toBeGreaterThanOrEqual(1);
      expect(row.msPerToken).toBeCloseTo(3 * 0.132 + row.stallMsPerToken, 9);
    }
  });

  it("says the same in words, and reads CSV and JSON", () => {
    expect(replay(path).stdout).toMatch(/belady-bypass +4 +0\.\d{3} +1\.00/);
    const json = join(folder, "a.json");
    writeFileSync(json, "[[[0,1]],[[1,2]],[[0,1]]]");
    expect(JSON.parse(replay(json, "--capacity", "2", "--cache", "lru", "--json").stdout).rows[0]).toMatchObject({
      hits: 2,
      references: 6,
    });
    const csv = join(folder, "a.txt");
    writeFileSync(csv, "layer,expert\n0,0\n1,0\n0,1\n1,0\n");
    expect(JSON.parse(replay(csv, "--format", "csv", "--capacity", "1", "--json").stdout).rows[0]).toMatchObject({
      hits: 1,
      references: 4,
    });
  });

  it("refuses what it does not understand, in one line", () => {
    const refused = (args: readonly string[], message: RegExp) => {
      const { status, stdout, stderr } = replay(...args);
      expect(status).not.toBe(0);
      expect(stdout).toBe("");
      expect(stderr.trim()).toMatch(message);
      expect(stderr.trim().split("\n").length).toBe(1);
    };
    const cut = join(folder, "cut.moetrc.gz");
    writeFileSync(cut, gzipSync(moe.writeMoeTrace(trace)).subarray(0, 200));
    refused([cut], /expected a whole gzip file/);
    refused([join(folder, "none.moetrc")], /no such file/);
    refused([command], /expected --format of moetrc, csv, json but received none/);
    refused([command, "--format", "moetrc"], /expected the first bytes "MOETRC1\\n"/);
    refused([path, "--capacity", "1"], /expected --capacity from 2, what a token needs in a layer, to 16 but received "1"/);
    refused([path, "--capacity", "17"], /--capacity/);
    refused([path, "--cache", "best"], /expected --cache of lru, lfu, .* but received "best"/);
    refused([path, "--bandwidth", "fast"], /expected --bandwidth above 0/);
    refused([path, "--expert-bytes", "0"], /expected --expert-bytes above 0/);
  });
});
