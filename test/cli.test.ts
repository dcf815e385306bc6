import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";

const command = fileURLToPath(new URL("../packages/hotset/bin/hotset.js", import.meta.url));
const cache = mkdtempSync(join(tmpdir(), "hotset-cache-"));
afterAll(() => rmSync(cache, { recursive: true, force: true }));

function hotset(args: readonly string[], env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], {
    encoding: "utf8",
    env: { ...process.env, HOTSET_CACHE_DIR: cache, ...env },
    timeout: 240_000,
  });
  return { status, stdout, stderr };
}
const json = (args: readonly string[], env?: Record<string, string>) => JSON.parse(hotset([...args, "--json"], env).stdout);

describe("hotset doctor", () => {
  it("lists every backend, with the reason for each missing one", () => {
    const { backends, version, cacheFolder, calibrated } = json(["doctor"]);
    expect(backends.map(({ id }: { id: string }) => id).sort()).toEqual(["cuda", "js", "native", "wasm", "webgpu"]);
    for (const { id, available, reason } of backends) {
      if (available) expect(reason).toBeNull();
      else expect(reason, id).toMatch(/expected .* but received /);
    }
    expect([typeof version, cacheFolder, calibrated]).toEqual(["string", cache, false]);
  });

  it("says it in words as well", () => {
    const { stdout, status } = hotset(["doctor"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/js +yes +js, 1 thread/);
    expect(stdout).toMatch(/webgpu +(no +webgpu: expected .* but received .*|yes +webgpu )/);
    expect(stdout).toContain("hotset calibrate");
  });
});

describe("hotset explain", () => {
  const args = ["explain", "search/scan", "--axes", "batch=1,count=100000,dim=128,k=10"];

  it("shows the candidates and the choice", () => {
    const { backend, why, candidates, variant } = json([...args, "--variant", "rows=f16,metric=l2"]);
    expect(candidates[0].backend).toBe(backend);
    expect(why).toContain(backend);
    expect(variant).toEqual({ rows: "f16", metric: "l2", filter: false });
    for (const { us, reason } of candidates) expect(us === undefined).toBe(reason !== undefined);
    expect(hotset([...args, "--variant", "rows=f32"]).stdout).toMatch(/search\/scan: \w+ \(.*\), because/);
  });

  it("refuses what it does not understand, in one line", () => {
    const refused = (extra: readonly string[], message: RegExp) => {
      const { status, stdout, stderr } = hotset(extra);
      expect(status).not.toBe(0);
      expect(stdout).toBe("");
      expect(stderr.trim()).toMatch(message);
      expect(stderr.trim().split("\n").length).toBeLessThanOrEqual(3);
    };
    refused(
      ["explain", "search/find", "--axes", "a=1"],
      /^hotset: explain: expected an op of .*search\/scan.* but received "search\/find"$/,
    );
    refused(["explain", "search/scan", "--axes", "batch"], /--axes: expected name=value/);
    refused(
      ["explain", "search/scan", "--axes", "batch=1,count=10,dim=8,k=11", "--variant", "rows=f32"],
      /k at most count but received k = 11, count = 10/,
    );
    refused(
      ["explain", "search/scan", "--axes", "batch=1,count=10,dim=8,k=1", "--variant", "rows=f64"],
      /rows to be one of f32, f16, bf16, i8 but received "f64"/,
    );
    refused(["explain", "--axes", "a=1"], /missing required argument 'op'/);
    refused(["explain", "search/scan"], /required option '--axes <list>' not specified/);
    refused(["bench", "--op", "nothing/*"], /no case matches --op nothing\/\*; there are .*search\/scan/);
    refused(["bench", "--time", "soon"], /expected --time in milliseconds/);
    refused(["bench", "--backend", "cpu"], /expected a backend of .* but received "cpu"/);
    refused(["benhc"], /unknown command 'benhc'/);
  });
});

describe("hotset calibrate", () => {
  it("measures, writes the constants, and the choice goes by them", () => {
    const { path, constants } = json(["calibrate"]);
    expect(readdirSync(cache)).toEqual([path.slice(cache.length + 1)]);
    expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(constants);
    for (const { launchUs, gflops, copyGBs, readGBs, ops } of Object.values(constants) as {
      launchUs: number;
      gflops: number;
      copyGBs: number;
      readGBs: number[][];
      ops: Record<string, { bandwidth: number; compute: number }>;
    }[]) {
      for (const value of [launchUs, gflops, copyGBs, ...readGBs.flat()]) expect(value).toBeGreaterThan(0);
      for (const { bandwidth, compute } of Object.values(ops)) {
        expect(bandwidth).toBeGreaterThan(0);
        expect(compute).toBeGreaterThan(0);
      }
    }
    expect(json(["doctor"]).calibrated).toBe(true);
    expect(json(["explain", "search/scan", "--axes", "batch=1,count=100000,dim=128,k=10", "--variant", "rows=f32"]).why).toContain(
      "as measured here",
    );
  });

  it("says what to do where it cannot write", () => {
    const file = join(cache, "file");
    writeFileSync(file, "");
    const { status, stderr } = hotset(["calibrate"], { HOTSET_CACHE_DIR: join(file, "below") });
    rmSync(file);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^hotset: cache folder: expected to write .* Set HOTSET_CACHE_DIR to a folder that can be written\./);
  });
});

describe("hotset bench", () => {
  it("checks, times and reports each backend against its limits", () => {
    const out = join(cache, "bench.json");
    const document = json(["bench", "--case", "40k x 100", "--time", "30", "--out", out]);
    expect(JSON.parse(readFileSync(out, "utf8")).rows).toEqual(document.rows);
    expect(document.rows.map(({ backend }: { backend: string }) => backend)).toContain("js");
    for (const row of document.rows) {
      for (const field of ["op", "backend", "kernel", "dtype", "variant"]) expect(typeof row[field]).toBe("string");
      for (const field of ["medianUs", "p95Us", "gbPerS", "gflopPerS", "shareOfLimit", "rotated"]) expect(row[field]).toBeGreaterThan(0);
      expect(row.p95Us).toBeGreaterThanOrEqual(row.medianUs);
      expect(document.limits[row.backend].readGBs).toBeGreaterThan(0);
    }
  });

  it("reports the regret of the choice on cases that were not fitted to", () => {
    const { regret } = json(["bench", "--case", "100 x 128", "--time", "20", "--selection"]);
    expect(regret.rows.length).toBe(1);
    expect(regret.median).toBeGreaterThanOrEqual(1);
  });

  it("says where the peers are when they are not installed", () => {
    const { stdout, stderr, status } = hotset(["bench", "--case", "one query, 100 x 128", "--time", "20", "--peers"]);
    if (status === 0) expect(stdout).toContain("Peers:");
    else expect(stderr).toMatch(/--peers needs a checkout of the repository/);
  });
});

describe("help", () => {
  it("names every command, and what each does", () => {
    const { stdout, status } = hotset(["--help"]);
    expect(status).toBe(0);
    for (const name of ["doctor", "calibrate", "explain", "bench"]) expect(stdout).toContain(name);
    for (const name of ["doctor", "calibrate", "explain", "bench"]) expect(hotset([name, "--help"]).stdout).toContain("--json");
  });
});
