/**
 * MOETRC1, a container for routing traces: "MOETRC1\n", the header's length (u32, little-endian), a JSON header
 * (model, layers, experts, topk, tokens, sequences [{ start, len }], arrays [{ name, dtype, shape, offset, bytes }]), then
 * the arrays, little-endian, with offsets from the header's end. `ids` is [layers, topk, tokens] or [tokens, layers, topk];
 * `tok`, if there, is [tokens]. Files are usually gzipped as a whole.
 */
import { FormatError, HotsetError } from "../../errors.js";
import { checkIds, checkSequences, idArray, type MoeTrace, shown, traceLimits, wholeNumber } from "./trace.js";

const magic = "MOETRC1\n";
const headerAt = magic.length + 4;
const elementBytes: Readonly<Record<string, number>> = { u8: 1, i8: 1, u16: 2, i16: 2, f16: 2, u32: 4, i32: 4, f32: 4 };

interface StoredArray {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: DataView;
}

/**
 * The trace in a file's bytes, gzipped or not. `maxBytes`: the most that a gzipped file may unfold to; default 1 GiB.
 * Throws FormatError for anything damaged, cut off or lying about its lengths.
 */
export async function openMoeTrace(
  bytes: Uint8Array,
  { where = "MOETRC1", maxBytes = 2 ** 30 }: { where?: string; maxBytes?: number } = {},
): Promise<MoeTrace> {
  return parseMoeTrace(await unzipped(bytes, where, maxBytes), where);
}

/** The bytes themselves, or what they unfold to where they begin as gzip does. Throws FormatError. */
export async function unzipped(bytes: Uint8Array, where: string, maxBytes = 2 ** 30): Promise<Uint8Array> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    const reader = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      length += part.value.length;
      if (length > maxBytes) {
        await reader.cancel();
        break;
      }
    }
  } catch (cause) {
    throw new FormatError({ where, expected: "a whole gzip file", received: (cause as Error).message, cause });
  }
  if (length > maxBytes) throw new FormatError({ where, expected: `at most ${maxBytes} bytes when unzipped`, received: "more" });
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The trace in the bytes of a MOETRC1 file that is not gzipped. Throws FormatError. */
export function parseMoeTrace(bytes: Uint8Array, where = "MOETRC1"): MoeTrace {
  const { header, dataAt } = parseHeader(bytes, where);
  const layers = wholeNumber(header.layers, 1, traceLimits.layers, `${where}: layers`);
  const experts = wholeNumber(header.experts, 1, traceLimits.experts, `${where}: experts`);
  const topK = wholeNumber(header.topk, 1, experts, `${where}: topk`);
  const tokens = wholeNumber(header.tokens, 0, traceLimits.tokens, `${where}: tokens`);
  const arrays = parseArrays(header.arrays, bytes, dataAt, where);
  const sequences = checkSequences(header.sequences, tokens, `${where}: sequences`);
  const ids = routedIds(arrays, { layers, experts, topK, tokens }, where);
  checkIds({ ids, layers, experts, topK }, where);
  const stored = arrays.find(({ name }) => name === "tok");
  return {
    model: typeof header.model === "string" ? header.model : "unknown",
    layers,
    experts,
    topK,
    tokens,
    sequences,
    ids,
    ...(stored ? { tokenIds: vocabularyIds(stored, tokens, where) } : {}),
  };
}

/** A trace as the bytes of a MOETRC1 file, not gzipped. Throws HotsetError where a size is beyond the format. */
export function writeMoeTrace(trace: MoeTrace): Uint8Array {
  const { model, layers, experts, topK, tokens, ids, tokenIds } = trace;
  if (ids.length !== tokens * layers * topK)
    throw new HotsetError("shape", { where: "writeMoeTrace", expected: `ids of ${tokens * layers * topK}`, received: `${ids.length}` });
  const idBytes = ids.length * ids.BYTES_PER_ELEMENT;
  // Four-byte elements first, so that each array is aligned to its own size.
  const tokBytes = tokenIds ? 4 * tokens : 0;
  const arrays = [
    ...(tokenIds ? [{ name: "tok", dtype: "u32", shape: [tokens], offset: 0, bytes: tokBytes }] : []),
    { name: "ids", dtype: ids.BYTES_PER_ELEMENT === 1 ? "u8" : "u16", shape: [tokens, layers, topK], offset: tokBytes, bytes: idBytes },
  ];
  const sequences = trace.sequences.map(({ start, length }) => ({ start, len: length }));
  const header = { format: "MOETRC1", model, layers, experts, topk: topK, tokens, sequences, arrays };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const out = new Uint8Array(headerAt + text.length + tokBytes + idBytes);
  const view = new DataView(out.buffer);
  out.set(new TextEncoder().encode(magic));
  view.setUint32(magic.length, text.length, true);
  out.set(text, headerAt);
  const data = headerAt + text.length;
  if (tokenIds) for (let t = 0; t < tokens; t++) view.setUint32(data + 4 * t, tokenIds[t] as number, true);
  for (let i = 0; i < ids.length; i++) {
    if (ids.BYTES_PER_ELEMENT === 1) out[data + tokBytes + i] = ids[i] as number;
    else view.setUint16(data + tokBytes + 2 * i, ids[i] as number, true);
  }
  return out;
}

function parseHeader(bytes: Uint8Array, where: string): { header: Record<string, unknown>; dataAt: number } {
  const start = new TextDecoder("latin1").decode(bytes.subarray(0, magic.length));
  if (start !== magic) throw new FormatError({ where, expected: `the first bytes ${JSON.stringify(magic)}`, received: shown(start) });
  if (bytes.length < headerAt)
    throw new FormatError({ where, expected: `at least ${headerAt} bytes`, received: `${bytes.length}`, hint: "The file is cut off." });
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(magic.length, true);
  if (length > bytes.length - headerAt)
    throw new FormatError({ where, expected: `a header of at most ${bytes.length - headerAt} bytes`, received: `${length}` });
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(headerAt, headerAt + length)));
  } catch (cause) {
    throw new FormatError({ where: `${where}: header`, expected: "JSON", received: (cause as Error).message, cause });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header))
    throw new FormatError({ where: `${where}: header`, expected: "a JSON object", received: shown(header) });
  return { header: header as Record<string, unknown>, dataAt: headerAt + length };
}

/** Every array that the header lists, each within the file; together they reach its end. */
function parseArrays(value: unknown, bytes: Uint8Array, dataAt: number, where: string): StoredArray[] {
  if (!Array.isArray(value)) throw new FormatError({ where: `${where}: arrays`, expected: "a list", received: shown(value) });
  const room = bytes.length - dataAt;
  let end = 0;
  const arrays = value.map((entry: unknown, i) => {
    const at = `${where}: arrays[${i}]`;
    const {
      name,
      dtype,
      shape,
      offset,
      bytes: size,
    } = (typeof entry === "object" && entry !== null ? entry : {}) as Record<string, unknown>;
    if (typeof name !== "string") throw new FormatError({ where: at, expected: "a name", received: shown(name) });
    const element = typeof dtype === "string" && Object.hasOwn(elementBytes, dtype) ? elementBytes[dtype] : undefined;
    if (element === undefined)
      throw new FormatError({ where: at, expected: `a dtype of ${Object.keys(elementBytes).join(", ")}`, received: shown(dtype) });
    if (!Array.isArray(shape) || shape.length > 8)
      throw new FormatError({ where: at, expected: "a shape of at most 8 sizes", received: shown(shape) });
    const from = wholeNumber(offset, 0, room, `${at}.offset`);
    const length = wholeNumber(size, 0, room - from, `${at}.bytes`);
    let needed: number = element;
    // Stops before a product could lose digits.
    for (const [axis, n] of shape.entries())
      needed = Math.min(2 ** 50, needed * wholeNumber(n, 0, traceLimits.tokens, `${at}.shape[${axis}]`));
    if (needed !== length) throw new FormatError({ where: at, expected: `${needed} bytes for its shape`, received: `${length}` });
    end = Math.max(end, from + length);
    return {
      name,
      dtype: dtype as string,
      shape: shape as number[],
      data: new DataView(bytes.buffer, bytes.byteOffset + dataAt + from, length),
    };
  });
  if (end !== room) throw new FormatError({ where, expected: `${end} bytes of arrays`, received: `${room}`, hint: "The file is damaged." });
  return arrays;
}

type Sizes = Pick<MoeTrace, "layers" | "experts" | "topK" | "tokens">;

/** The experts as [tokens, layers, topK]. */
function routedIds(arrays: readonly StoredArray[], { layers, experts, topK, tokens }: Sizes, where: string): Uint8Array | Uint16Array {
  const stored = arrays.find(({ name }) => name === "ids");
  if (!stored) throw new FormatError({ where: `${where}: arrays`, expected: 'one named "ids"', received: "none" });
  const is = (...shape: number[]): boolean => stored.shape.length === 3 && shape.every((n, axis) => n === stored.shape[axis]);
  const byLayer = is(layers, topK, tokens);
  if (!byLayer && !is(tokens, layers, topK))
    throw new FormatError({
      where: `${where}: ids`,
      expected: `the shape [${layers}, ${topK}, ${tokens}] or [${tokens}, ${layers}, ${topK}]`,
      received: `[${stored.shape.join(", ")}]`,
    });
  const read = unsignedReader(stored, `${where}: ids`);
  const ids = idArray(experts, tokens * layers * topK);
  for (let i = 0; i < ids.length; i++) {
    const from = byLayer ? (Math.floor(i / topK) % layers) * topK * tokens + (i % topK) * tokens + Math.floor(i / (topK * layers)) : i;
    const id = read(from);
    // Compared before it is stored, because storing would cut it.
    if (id >= experts)
      throw new FormatError({ where: `${where}: ids[${from}]`, expected: `experts below ${experts}`, received: String(id) });
    ids[i] = id;
  }
  return ids;
}

function vocabularyIds(stored: StoredArray, tokens: number, where: string): Uint32Array {
  if (stored.shape.length !== 1 || stored.shape[0] !== tokens)
    throw new FormatError({ where: `${where}: tok`, expected: `the shape [${tokens}]`, received: `[${stored.shape.join(", ")}]` });
  const read = unsignedReader(stored, `${where}: tok`);
  // In 16 bits, the largest number stands for a token without one.
  const known = (id: number): number => (stored.dtype === "u16" && id === 0xffff ? 0xffffffff : id);
  return Uint32Array.from({ length: tokens }, (_, t) => known(read(t)));
}

function unsignedReader({ dtype, data }: StoredArray, where: string): (i: number) => number {
  if (dtype === "u8") return (i) => data.getUint8(i);
  if (dtype === "u16") return (i) => data.getUint16(2 * i, true);
  if (dtype === "u32") return (i) => data.getUint32(4 * i, true);
  throw new FormatError({ where, expected: "a dtype of u8, u16, u32", received: dtype });
}
