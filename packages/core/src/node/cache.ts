import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { arch, cpus, homedir, platform } from "node:os";
import { join } from "node:path";
import type { Backend } from "../backend.js";
import { HotsetError } from "../errors.js";
import type { MachineConstants } from "../machine.js";
import { writeWhole } from "./whole-file.js";

/** HOTSET_CACHE_DIR, else the user's cache folder. It is made when something is written. */
export function cacheFolder(): string {
  const { HOTSET_CACHE_DIR, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (HOTSET_CACHE_DIR) return HOTSET_CACHE_DIR;
  if (platform() === "win32") return join(LOCALAPPDATA ?? join(homedir(), "AppData", "Local"), "hotset", "Cache");
  if (platform() === "darwin") return join(homedir(), "Library", "Caches", "hotset");
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "hotset");
}

/** What measured speeds depend on: processor, backends with their devices and threads, and this version. */
export function machineKey(backends: readonly Backend[], version: string): string {
  const processor = cpus()[0]?.model.trim() || "unknown processor";
  const parts = [version, process.versions.v8, platform(), arch(), processor, String(cpus().length), ...backends.map(({ name }) => name)];
  return createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 16);
}

const fileOf = (key: string): string => join(cacheFolder(), `machine-${key}.json`);

/** What `hotset calibrate` wrote for this machine; undefined where there is nothing, or nothing readable. */
export function readConstants(key: string): MachineConstants | undefined {
  try {
    const constants: unknown = JSON.parse(readFileSync(fileOf(key), "utf8"));
    return isConstants(constants) ? constants : undefined;
  } catch {
    return undefined;
  }
}

/** Writes them atomically; returns the path. Throws HotsetError where the folder cannot be written. */
export function writeConstants(key: string, constants: MachineConstants): string {
  return written(fileOf(key), (path) => writeWhole(path, [new TextEncoder().encode(`${JSON.stringify(constants, null, 2)}\n`)]));
}

/** Throws what `writeConstants` would throw: to know it before a minute of measuring. */
export function checkCacheFolder(key: string): void {
  written(fileOf(key), (path) => {
    const trial = `${path}.${process.pid}`;
    writeWhole(trial, []);
    rmSync(trial);
  });
}

function written(path: string, write: (path: string) => void): string {
  try {
    mkdirSync(cacheFolder(), { recursive: true });
    write(path);
  } catch (cause) {
    throw new HotsetError("argument", {
      where: "cache folder",
      expected: `to write ${path}`,
      received: (cause as Error).message,
      hint: "Set HOTSET_CACHE_DIR to a folder that can be written.",
      cause,
    });
  }
  return path;
}

function isConstants(value: unknown): value is MachineConstants {
  const positive = (number: unknown): boolean => typeof number === "number" && number > 0 && Number.isFinite(number);
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).every(
    (entry: Record<string, unknown>) =>
      entry !== null &&
      positive(entry.launchUs) &&
      positive(entry.gflops) &&
      positive(entry.copyGBs) &&
      Array.isArray(entry.readGBs) &&
      entry.readGBs.length > 0 &&
      entry.readGBs.every((point: unknown) => Array.isArray(point) && point.length === 2 && point.every(positive)) &&
      typeof entry.ops === "object" &&
      entry.ops !== null &&
      Object.values(entry.ops).every((shares: Record<string, unknown>) => positive(shares?.bandwidth) && positive(shares?.compute)),
  );
}
