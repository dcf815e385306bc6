/** The layout of safetensors: a u64 length, so many bytes of JSON that name tensors, and their values behind it. */
import { describe, FormatError } from "./errors.js";

export interface StoredTensor {
  /** As the file names it: F32, BF16, I64 ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Its bytes in the file: a view, aligned by chance only. */
  readonly data: Uint8Array;
}

export interface StoredTensors {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** `__metadata__`: texts, by the format's page. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** All bytes behind the header. */
  readonly data: Uint8Array;
}

/** Headers are small; a longer one is a mistake or an attack. */
const longestHeader = 100e6;
const widths: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** Whether a file may be one: the length of a header, and the header's first character. */
export function looksLikeSafetensors(bytes: Uint8Array): boolean {
  if (bytes.length < 10) return false;
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  return length >= 2n && length <= BigInt(bytes.length - 8) && bytes[8] === 0x7b;
}

/**
 * What a file holds, with every length compared with the file's before it is used, and with its dtype and shape where the
 * dtype's width is known. Nothing is copied. Throws FormatError. `where` is named in errors.
 */
export function readSafetensors(given: Uint8Array, where = "safetensors"): StoredTensors {
  // A Buffer's slice would be a view, where others copy.
  const file = new Uint8Array(given.buffer, given.byteOffset, given.byteLength);
  const wrong = (expected: string, received: string, cause?: unknown): FormatError =>
    new FormatError({ where, expected, received, cause, hint: "The file is damaged, cut off, or of another format." });
  if (file.length < 8) throw wrong("a header length of 8 bytes", `${file.length} bytes`);
  const length = new DataView(file.buffer, file.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(file.length - 8)) throw wrong(`a header of ${length} bytes`, `${file.length - 8}`);
  if (length > longestHeader) throw wrong(`a header of at most ${longestHeader} bytes`, `${length}`);
  const start = 8 + Number(length);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, start)));
  } catch (cause) {
    throw wrong("a header in JSON", (cause as Error).message, cause);
  }
  if (!isRecord(header)) throw wrong("a header with tensors", describe(header));
  const { __metadata__: metadata = {}, ...entries } = header;
  if (!isRecord(metadata)) throw wrong("metadata of texts", describe(metadata));
  const data = file.subarray(start);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets: offsets } = isRecord(entry) ? entry : {};
    if (typeof dtype !== "string" || !isSizes(shape) || !isSizes(offsets) || offsets.length !== 2)
      throw wrong(`dtype, shape and data_offsets of ${name}`, JSON.stringify(entry)?.slice(0, 120) ?? "none");
    const [from, to] = offsets as [number, number];
    if (from > to || to > data.length) throw wrong(`${name} inside the ${data.length} bytes of data`, `bytes ${from} to ${to}`);
    const bytes = (widths[dtype] ?? Number.NaN) * shape.reduce((product, size) => product * size, 1);
    if (!Number.isNaN(bytes) && to - from !== bytes)
      throw wrong(`${bytes} bytes of ${name}, ${dtype} [${shape.join(", ")}]`, `${to - from}`);
    tensors.set(name, { dtype, shape, data: data.subarray(from, to) });
  }
  return { tensors, metadata, data };
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);
const isSizes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
