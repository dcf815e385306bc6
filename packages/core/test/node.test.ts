import { createHash } from "node:crypto";
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HotsetError, js, type MachineConstants } from "@hotset/core";
import { availableThreads, cacheFolder, machineKey, readChecked, readConstants, threadSetting, writeConstants } from "@hotset/core/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "hotset-"));
  process.env.HOTSET_CACHE_DIR = folder;
});
afterEach(() => {
  delete process.env.HOTSET_CACHE_DIR;
  delete process.env.HOTSET_THREADS;
  rmSync(folder, { recursive: true, force: true });
});

const constants: MachineConstants = {
  js: { launchUs: 0.1, readGBs: [[1024, 2]], gflops: 1, copyGBs: 3, ops: { "search/scan": { bandwidth: 0.5, compute: 0.5 } } },
};

describe("the cache of measured speeds", () => {
  it("is written whole, and read back", () => {
    const key = machineKey([js()], "1.0.0");
    expect(writeConstants(key, constants)).toBe(join(folder, `machine-${key}.json`));
    expect(readdirSync(folder)).toEqual([`machine-${key}.json`]);
    expect(readConstants(key)).toEqual(constants);
    expect(machineKey([js()], "1.0.1")).not.toBe(key);
    expect(cacheFolder()).toBe(folder);
  });

  it("is ignored where it is missing, damaged or of another form", () => {
    expect(readConstants("none")).toBeUndefined();
    for (const text of [
      "",
      "{",
      "[1]",
      '{"js":null}',
      '{"js":{"launchUs":-1}}',
      JSON.stringify({ js: { ...constants.js, gflops: "fast" } }),
    ]) {
      writeFileSync(join(folder, "machine-bad.json"), text);
      expect(readConstants("bad"), text).toBeUndefined();
    }
  });

  it("says what to do where the folder cannot be written", () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    process.env.HOTSET_CACHE_DIR = join(file, "below");
    expect(() => writeConstants("key", constants)).toThrow(HotsetError);
    expect(() => writeConstants("key", constants)).toThrow(/Set HOTSET_CACHE_DIR to a folder that can be written/);
  });

  it.skipIf(process.getuid?.() === 0)("says so for a folder without permission (not as root)", () => {
    chmodSync(folder, 0o500);
    expect(() => writeConstants("key", constants)).toThrow(/HOTSET_CACHE_DIR/);
    chmodSync(folder, 0o700);
  });
});

describe("files checked before they are loaded", () => {
  const bytes = Buffer.from("a binary file");
  const write = (manifest: unknown) => {
    writeFileSync(join(folder, "x.node"), bytes);
    writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
  };
  const good = { "x.node": { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") } };

  it("are read when size and hash are right", () => {
    write(good);
    expect(Buffer.from(readChecked(folder, "x.node"))).toEqual(bytes);
  });

  it("are refused truncated, changed, unlisted or missing, each with the reason", () => {
    write(good);
    writeFileSync(join(folder, "x.node"), bytes.subarray(0, 5));
    expect(() => readChecked(join(folder, "other-platform"), "x.node")).toThrow(
      /received no such folder\. The package has nothing for this/,
    );
    expect(() => readChecked(folder, "x.node")).toThrow(/expected 13 bytes but received 5\. The package is damaged: install it again/);
    writeFileSync(join(folder, "x.node"), "b binary file");
    expect(() => readChecked(folder, "x.node")).toThrow(/expected sha256/);
    expect(() => readChecked(folder, "y.node")).toThrow(/an entry in manifest\.json/);
    rmSync(join(folder, "x.node"));
    expect(() => readChecked(folder, "x.node")).toThrow(/a readable file/);
    rmSync(join(folder, "manifest.json"));
    expect(() => readChecked(folder, "x.node")).toThrow(/the list of this package's files/);
  });
});

describe("threads", () => {
  it("are what the process may use, unless they are set", () => {
    expect(availableThreads()).toBeGreaterThanOrEqual(1);
    expect(threadSetting()).toBe(availableThreads());
    process.env.HOTSET_THREADS = "3";
    expect(threadSetting()).toBe(3);
    expect(threadSetting(5)).toBe(5);
  });

  it("are refused when they are no number of threads", () => {
    for (const value of ["0", "-1", "many", "1.5", "257"]) {
      process.env.HOTSET_THREADS = value;
      expect(() => threadSetting()).toThrow(/HOTSET_THREADS: expected a whole number from 1 to 256/);
    }
  });
});
