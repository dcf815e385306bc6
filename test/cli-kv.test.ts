import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { agentSessions } from "../packages/core/src/kv-cache/index.js";

const command = fileURLToPath(new URL("../packages/hotset/bin/hotset.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hotset-kv-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function hotset(args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [command, "kv", "replay", ...args], { encoding: "utf8", timeout: 120_000 });
}

const trace = agentSessions({ seed: 7, sessions: 60 });
const lines = Array.from({ length: trace.requests }, (_, r) =>
  JSON.stringify({ timestamp: r, hash_ids: [...trace.blocks.slice(trace.offsets[r], trace.offsets[r + 1])] }),
).join("\n");
const file = (name: string, content: string | Uint8Array): string => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};

describe("hotset kv replay", () => {
  const plain = file("trace.jsonl", lines);
  const zipped = file("trace.jsonl.gz", gzipSync(lines));

  it("replays every policy, with the named fields, gzipped or not", () => {
    const args = ["--format", "mooncake", "--capacity", "5%,50", "--semantics", "req", "--json"];
    const document = JSON.parse(hotset([plain, ...args]).stdout);
    expect(JSON.parse(hotset([zipped, ...args]).stdout).rows).toEqual(document.rows);
    expect([document.requests, document.references, document.uniqueBlocks]).toEqual([trace.requests, trace.references, trace.unique]);
    expect(document.rows.length).toBe(20);
    for (const { policy, capacity, hits, references, hitRatio, missesOverBelady } of document.rows) {
      expect([50, Math.floor(trace.unique / 20)]).toContain(capacity);
      expect(references).toBe(trace.references);
      expect(hitRatio).toBe(hits / references);
      if (policy === "belady") expect(missesOverBelady).toBe(1);
      else expect(missesOverBelady, policy).toBeGreaterThan(policy === "belady-bypass" ? 0.9 : 0.999);
    }
  });

  it("prints a table", () => {
    const { stdout, status } = hotset([plain, "--format", "mooncake", "--policy", "lru,hazard", "--capacity", "40", "--leaf-safe"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/policy +capacity +hits +hit ratio +misses over Belady's\nlru +40 +\d+ +0\.\d{4} +\d\.\d{3}\nhazard +40 /);
  });

  it("refuses what it does not understand, in one line and with nothing on stdout", () => {
    const refused = (args: readonly string[], message: RegExp) => {
      const { status, stdout, stderr } = hotset(args);
      expect([status, stdout], stderr).toEqual([1, ""]);
      expect(stderr.trim()).toMatch(message);
      expect(stderr.trim().split("\n").length).toBeLessThanOrEqual(2);
    };
    const mooncake = ["--format", "mooncake"];
    refused([plain], /required option '--format <name>' not specified/);
    refused([plain, "--format", "csv"], /Allowed choices are mooncake, weka, ragpulse, libcachesim/);
    refused([plain, ...mooncake, "--semantics", "token"], /Allowed choices are flat, prefix, req/);
    refused([plain, ...mooncake, "--policy", "lru,mru"], /--policy: expected all or some of lru, .* but received "mru"/);
    for (const capacity of ["0", "1.5", "-3", "0%", "101%", "%", "many"])
      refused([plain, ...mooncake, `--capacity=${capacity}`], /--capacity: expected numbers of blocks, or percentages/);
    refused([plain, ...mooncake, "--capacity", "1,,2"], /--capacity: expected a list a,b,\.\.\. but received "1,,2"/);
    refused([join(folder, "none"), ...mooncake], /expected a file that can be read but received ENOENT/);
    refused([folder, ...mooncake], /expected a file that can be read but received|EISDIR/);
    refused([plain, "--format", "libcachesim"], /trace\.jsonl, line 1: expected time,object,size but received/);
    const whole = gzipSync(lines);
    refused([file("cut.gz", whole.subarray(0, whole.length - 9)), ...mooncake], /cut\.gz: expected a whole gzip file but received/);
    refused([file("torn.gz", Buffer.concat([whole.subarray(0, 200), Buffer.alloc(80)])), ...mooncake], /torn\.gz/);
    refused([file("bad.jsonl", '{"hash_ids":[0,1]}\n{"hash_ids":[0,'), ...mooncake], /bad\.jsonl, line 2: expected one JSON object/);
  });

  const recorded = fileURLToPath(new URL("../../shared/data/traces/mooncake/conversation_trace.jsonl.gz", import.meta.url));
  it.skipIf(!existsSync(recorded))("Mooncake's conversation trace, where ../shared/data has it: as many hits as it says", () => {
    const { rows, requests, references } = JSON.parse(hotset([recorded, "--format", "mooncake", "--capacity", "1%", "--json"]).stdout);
    expect([requests, references]).toEqual([12031, 288500]);
    const hits = Object.fromEntries(rows.map((row: { policy: string; hits: number }) => [row.policy, row.hits]));
    expect(hits.hazard).toBeGreaterThan(1.5 * hits.lru);
    expect(hits["belady-bypass"]).toBeGreaterThanOrEqual(hits.belady);
  });
});
