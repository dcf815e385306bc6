/** Files of indexes: written whole or not at all, read into the memory they stay in, or mapped. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { isDevice } from "../backend.js";
import { defaultHotset } from "../default.js";
import { FormatError, HotsetError } from "../errors.js";
import type { Source } from "../search/flat-index/container.js";
import { FlatIndex, type OpenSettings } from "../search/flat-index/flat-index.js";
import { readFully, writeWhole } from "./whole-file.js";

/**
 * Writes an index to `path`: to a temporary file beside it, which takes its place when all of it is on the disk. The
 * index is compacted first. Throws HotsetError where that cannot be done; then what was at `path` is as it was.
 */
export function saveIndex(index: FlatIndex, path: string): void {
  try {
    writeWhole(path, index.parts());
  } catch (cause) {
    if (cause instanceof HotsetError) throw cause;
    throw new HotsetError("argument", { where: "saveIndex", expected: `to write ${path}`, received: (cause as Error).message, cause });
  }
}

export interface OpenFileSettings extends OpenSettings {
  /**
   * Keep the file mapped instead of reading it, where the backend can: pages come when they are read and are shared
   * between processes; changes stay in this one. Default: true. A mapped file may be replaced (as saveIndex does) but
   * not cut short: the operating system ends processes that read beyond its end.
   */
  readonly map?: boolean;
}

/** Opens what `saveIndex` wrote. Throws FormatError where the file is damaged, truncated or something else. */
export async function openIndex(path: string, settings: OpenFileSettings = {}): Promise<FlatIndex> {
  const hotset = settings.hotset ?? (await defaultHotset());
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (cause) {
    throw new HotsetError("argument", { where: "openIndex", expected: `to read ${path}`, received: (cause as Error).message, cause });
  }
  try {
    const info = fstatSync(file);
    if (!info.isFile()) throw new FormatError({ where: path, expected: "a file", received: "something else" });
    const source: Source = { name: path, bytes: info.size, read: (offset, target) => readFully(file, path, offset, target) };
    const mapper = settings.map === false ? undefined : hotset.backends.find((backend) => !isDevice(backend) && backend.map);
    const mapped = mapper && !isDevice(mapper) ? mapper.map?.(file, info.size) : undefined;
    const views = mapped ? { ...source, view: (offset: number, bytes: number) => mapped.subarray(offset, offset + bytes) } : source;
    return FlatIndex.load(hotset, views, settings);
  } finally {
    closeSync(file);
  }
}
