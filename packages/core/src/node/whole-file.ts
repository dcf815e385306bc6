/** Files that are written whole or not at all, and read whole, of any size. */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { FormatError } from "../errors.js";

/** Calls of the system take less than 2 GiB at a time. */
const most = 1 << 30;

/**
 * Writes the parts to a temporary file beside `path`, which takes its place when all of it is on the disk. Throws what the
 * file system or the parts throw; then what was at `path` is as it was.
 */
export function writeWhole(path: string, parts: Iterable<Uint8Array>): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = openSync(temporary, "w");
    try {
      for (const part of parts) for (let at = 0; at < part.length; ) at += writeSync(file, part, at, Math.min(part.length - at, most));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (cause) {
    removeQuietly(temporary);
    throw cause;
  }
  syncFolder(dirname(path));
}

/** A file's bytes. Throws FormatError where it is no file or becomes shorter meanwhile, and what the file system throws. */
export function readWhole(path: string): Uint8Array<ArrayBuffer> {
  const file = openSync(path, "r");
  try {
    const info = fstatSync(file);
    if (!info.isFile()) throw new FormatError({ where: path, expected: "a file", received: "something else" });
    const bytes = new Uint8Array(info.size);
    readFully(file, path, 0, bytes);
    return bytes;
  } finally {
    closeSync(file);
  }
}

/** Fills `target` from an open file. Throws FormatError where the file ends before. */
export function readFully(file: number, path: string, offset: number, target: Uint8Array): void {
  for (let at = 0; at < target.length; ) {
    const count = readSync(file, target, at, Math.min(target.length - at, most), offset + at);
    if (count === 0)
      throw new FormatError({ where: path, expected: `${target.length} bytes at ${offset}`, received: `${at}: the file became shorter` });
    at += count;
  }
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // It was never made.
  }
}

/** So that the new name itself survives a loss of power; systems that do not let folders be opened do without. */
function syncFolder(folder: string): void {
  try {
    const file = openSync(folder, "r");
    try {
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch {
    // Windows.
  }
}
