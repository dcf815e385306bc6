import { createReadStream, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { FormatError, HotsetError } from "../errors.js";
import { readTrace, type TraceFormat } from "../kv-cache/replay/readers/index.js";
import type { KvTrace } from "../kv-cache/replay/trace.js";

/**
 * Reads a trace file, gzipped or not. `progress` hears the bytes read and the bytes there are.
 * Throws HotsetError where the file cannot be read, FormatError where it is damaged or of another format.
 */
export async function openTrace(path: string, format: TraceFormat, progress?: (read: number, size: number) => void): Promise<KvTrace> {
  let [size, gzipped] = [0, false];
  try {
    size = statSync(path).size;
    gzipped = await startsAsGzip(path);
  } catch (cause) {
    throw new HotsetError("load", { where: path, expected: "a file that can be read", received: (cause as Error).message, cause });
  }
  const file = createReadStream(path, { highWaterMark: 1 << 18 });
  if (progress) {
    let done = 0;
    file.on("data", (piece) => {
      done += piece.length;
      progress(done, size);
    });
  }
  let trace: KvTrace | undefined;
  const read = async (source: AsyncIterable<Uint8Array>): Promise<void> => {
    trace = await readTrace(decoded(source), format, path);
  };
  try {
    await (gzipped ? pipeline(file, createGunzip(), read) : pipeline(file, read));
    return trace as unknown as KvTrace;
  } catch (cause) {
    if (cause instanceof HotsetError) throw cause;
    const { code = "", message } = cause as NodeJS.ErrnoException;
    if (code === "EISDIR") throw new HotsetError("load", { where: path, expected: "a file that can be read", received: message, cause });
    if (!code.startsWith("Z_")) throw cause;
    throw new FormatError({ where: path, expected: "a whole gzip file", received: message, hint: "Fetch it again.", cause });
  }
}

async function startsAsGzip(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { bytesRead, buffer } = await file.read(new Uint8Array(2), 0, 2, 0);
    return bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b;
  } finally {
    await file.close();
  }
}

/** Bytes as text; a character may be cut between two pieces. */
async function* decoded(stream: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  for await (const piece of stream) yield decoder.decode(piece, { stream: true });
  yield decoder.decode();
}
