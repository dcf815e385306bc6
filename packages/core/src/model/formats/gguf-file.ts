/** The container GGUF: typed metadata, then tensors by name. Every count and offset is checked against the file. */
import { dtypes, storageLength } from "../../dtype.js";
import type { Weight } from "../config.js";
import { asFloats, asWords, Reader } from "./reader.js";

/** Text stays bytes until it is asked for: tokens need not be whole characters. */
export type GgufValue = number | boolean | Uint8Array | readonly GgufValue[] | Float64Array;

export interface GgufTensor {
  /** Outermost axis first. */
  readonly shape: readonly number[];
  readonly weight: Weight;
}

export interface GgufFile {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

const where = "GGUF model";
export const isGguf = (bytes: Uint8Array): boolean => bytes.length >= 4 && String.fromCharCode(...bytes.subarray(0, 4)) === "GGUF";

/** ggml's number of each type that is read here. */
const types: Readonly<Record<number, Weight["dtype"]>> = { 0: "f32", 1: "f16", 8: "q8_0", 30: "bf16" };

/** Reads a GGUF file of version 2 or 3; tensors are views of it. Throws FormatError. */
export function readGgufFile(bytes: Uint8Array): GgufFile {
  const reader = new Reader(bytes, where);
  if (reader.text(4, "magic") !== "GGUF") throw reader.damaged("GGUF at its start", "something else");
  const version = reader.u32("version");
  if (version !== 2 && version !== 3) throw reader.damaged("version 2 or 3, little-endian", `${version}`);
  const tensorCount = reader.u64("number of tensors");
  const valueCount = reader.u64("number of values");
  atMost(reader, tensorCount, 24, "tensors");
  atMost(reader, valueCount, 13, "values");
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    const key = name(reader);
    if (metadata.has(key)) throw reader.damaged(`one value of ${key}`, "two");
    metadata.set(key, readValue(reader, reader.u32(`type of ${key}`), key, 0));
  }
  const entries = Array.from({ length: tensorCount }, () => tensorEntry(reader));
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || !(alignment >= 1 && alignment <= 2 ** 20) || (alignment & (alignment - 1)) !== 0)
    throw reader.damaged("an alignment that is a power of two", `${alignment}`);
  const start = Math.ceil(reader.at / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  for (const { key, shape, type, offset } of entries) {
    if (tensors.has(key)) throw reader.damaged(`one tensor ${key}`, "two");
    const dtype = types[type];
    if (!dtype) throw reader.damaged(`${key} of type f32, f16, bf16 or q8_0`, `ggml type ${type}`);
    const { blockElements, storage } = dtypes[dtype];
    if ((shape.at(-1) as number) % blockElements !== 0)
      throw reader.damaged(`rows of ${key} in blocks of ${blockElements}`, `${shape.at(-1)}`);
    const length = storageLength(dtype, shape) * storage.BYTES_PER_ELEMENT;
    if (start + offset + length > bytes.length)
      throw reader.damaged(`${length} bytes of ${key} at byte ${start + offset}`, `a file of ${bytes.length} bytes`);
    const data = bytes.subarray(start + offset, start + offset + length);
    tensors.set(key, { shape, weight: { dtype, data: dtype === "f32" ? asFloats(data) : dtype === "q8_0" ? data : asWords(data) } });
  }
  return { metadata, tensors };
}

interface Entry {
  readonly key: string;
  readonly shape: readonly number[];
  readonly type: number;
  readonly offset: number;
}

function tensorEntry(reader: Reader): Entry {
  const key = name(reader);
  const rank = reader.u32(`rank of ${key}`);
  if (rank < 1 || rank > 4) throw reader.damaged(`${key} of 1 to 4 axes`, `${rank}`);
  const shape = Array.from({ length: rank }, () => reader.u64(`a size of ${key}`)).reverse();
  if (!(shape.reduce((product, size) => product * size, 1) <= 2 ** 40) || shape.includes(0))
    throw reader.damaged(`${key} of a possible size`, `[${shape.join(", ")}]`);
  return { key, shape, type: reader.u32(`type of ${key}`), offset: reader.u64(`offset of ${key}`) };
}

const name = (reader: Reader): string => {
  const length = reader.u64("length of a name");
  if (length > 65535) throw reader.damaged("a name of at most 65535 bytes", `${length}`);
  return reader.text(length, "name");
};

/** A list cannot have more members than the bytes that are left hold. */
function atMost(reader: Reader, count: number, leastBytes: number, what: string): void {
  if (count * leastBytes > reader.left) throw reader.damaged(`at most ${Math.floor(reader.left / leastBytes)} ${what}`, `${count}`);
}

/** Bytes of a number by its type. */
const sizes: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

function readNumber(reader: Reader, type: number, key: string): number {
  switch (type) {
    case 0:
      return reader.u8(key);
    case 1:
      return reader.i8(key);
    case 2:
      return reader.u16(key);
    case 3:
      return reader.i16(key);
    case 4:
      return reader.u32(key);
    case 5:
      return reader.i32(key);
    case 6:
      return reader.f32(key);
    case 7:
      return reader.u8(key);
    case 10:
      return reader.u64(key);
    case 11:
      return reader.i64(key);
    default:
      return reader.f64(key);
  }
}

function readValue(reader: Reader, type: number, key: string, depth: number): GgufValue {
  if (type === 7) return reader.u8(key) !== 0;
  if (sizes[type] !== undefined) return readNumber(reader, type, key);
  if (type === 8) return reader.bytes(reader.u64(`length of ${key}`), key);
  if (type !== 9 || depth > 3) throw reader.damaged(`${key} of a known type`, `type ${type}${depth > 3 ? " in lists of lists" : ""}`);
  const of = reader.u32(`type of ${key}`);
  const count = reader.u64(`length of ${key}`);
  atMost(reader, count, sizes[of] ?? (of === 8 ? 8 : 12), `members of ${key}`);
  if (sizes[of] !== undefined) {
    const numbers = new Float64Array(count);
    for (let i = 0; i < count; i++) numbers[i] = readNumber(reader, of, key);
    return numbers;
  }
  const members: GgufValue[] = [];
  for (let i = 0; i < count; i++) members.push(readValue(reader, of, key, depth + 1));
  return members;
}
