/**
 * Files of attention records: JSON and raw binary in the layout of safetensors, so that other programs read and write them
 * too. Tensors `queries.N`, `keys.N`, `values.N` and `out.N` (or qN, kN, vN, oN) of layer N, F32, [tokens, heads, headDim];
 * in the metadata the SHA-256 of the data.
 */
import { describe, FormatError } from "../../errors.js";
import { readSafetensors } from "../../safetensors.js";
import { type AttentionRecord, checkRecord, type LayerRecord } from "./record.js";

const part = { queries: "q", keys: "k", values: "v", out: "o" } as const;
type Part = keyof typeof part;
const parts = Object.keys(part) as Part[];

/** The bytes of a record's file. */
export async function writeRecord(record: AttentionRecord): Promise<Uint8Array<ArrayBuffer>> {
  checkRecord("writeRecord", record);
  const { tokens, queryHeads, kvHeads, headDim, scale, model, layers } = record;
  const header: Record<string, unknown> = {};
  const arrays: Float32Array[] = [];
  let at = 0;
  for (const [layer, own] of layers.entries())
    for (const name of parts) {
      const data = own[name];
      if (!data) continue;
      const heads = name === "queries" || name === "out" ? queryHeads : kvHeads;
      header[`${name}.${layer}`] = { dtype: "F32", shape: [tokens, heads, headDim], data_offsets: [at, at + data.byteLength] };
      arrays.push(data);
      at += data.byteLength;
    }
  const data = new Uint8Array(at);
  at = 0;
  for (const array of arrays) {
    // Little-endian on every platform that JavaScript engines are built for.
    data.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    at += array.byteLength;
  }
  const metadata = {
    format: "hotset attention record",
    sha256: await sha256(data),
    ...(scale === undefined ? {} : { scale: String(scale) }),
    ...(model === undefined ? {} : { model }),
  };
  const text = new TextEncoder().encode(JSON.stringify({ __metadata__: metadata, ...header }));
  const length = Math.ceil(text.length / 8) * 8;
  const file = new Uint8Array(8 + length + data.length).fill(0x20, 8, 8 + length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
  file.set(text, 8);
  file.set(data, 8 + length);
  return file;
}

/** Reads a record's file. Throws FormatError where it is cut, damaged (by its checksum, where it has one) or something else. */
export async function readRecord(file: Uint8Array, where = "attention record"): Promise<AttentionRecord> {
  const wrong = (expected: string, received: string): FormatError => new FormatError({ where, expected, received });
  const { tensors: stored, metadata, data } = readSafetensors(file, where);
  const { sha256: expected, scale, model } = metadata;
  if (expected !== undefined) {
    const found = await sha256(new Uint8Array(data));
    if (found !== expected) throw wrong(`data with SHA-256 ${describe(expected)}`, found);
  }
  const tensors = new Map<string, NamedArray>();
  for (const [name, { dtype, shape, data: bytes }] of stored) {
    if (dtype !== "F32") throw wrong(`${name} in F32`, describe(dtype));
    tensors.set(name, { shape, data: new Float32Array(bytes.slice().buffer) });
  }
  return recordOf(tensors, where, {
    ...(scale === undefined ? {} : { scale: Number(scale) }),
    ...(typeof model === "string" ? { model } : {}),
  });
}

export interface NamedArray {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** A record of tensors by name: `queries.0` or `q0`, and so on; names of something else are left out. Throws FormatError. */
export function recordOf(
  tensors: ReadonlyMap<string, NamedArray>,
  where: string,
  other: { readonly scale?: number; readonly model?: string } = {},
): AttentionRecord {
  const wrong = (expected: string, received: string): FormatError => new FormatError({ where, expected, received });
  const of = (name: Part, layer: number): NamedArray | undefined => tensors.get(`${name}.${layer}`) ?? tensors.get(`${part[name]}${layer}`);
  const first = of("queries", 0);
  const keys = of("keys", 0);
  if (!first || !keys) throw wrong("tensors queries.0 and keys.0 (or q0 and k0)", [...tensors.keys()].slice(0, 8).join(", ") || "none");
  if (first.shape.length !== 3 || keys.shape.length !== 3)
    throw wrong("queries and keys [tokens, heads, headDim]", `[${first.shape}] and [${keys.shape}]`);
  const [tokens, queryHeads, headDim] = first.shape as [number, number, number];
  const kvHeads = keys.shape[1] as number;
  const layers: LayerRecord[] = [];
  for (let layer = 0; of("queries", layer) !== undefined || of("keys", layer) !== undefined; layer++) {
    const own: Partial<Record<Part, Float32Array>> = {};
    for (const name of parts) {
      const tensor = of(name, layer);
      const heads = name === "queries" || name === "out" ? queryHeads : kvHeads;
      if (!tensor && (name === "queries" || name === "keys")) throw wrong(`${name} of layer ${layer}`, "none");
      if (tensor && tensor.shape.join() !== [tokens, heads, headDim].join())
        throw wrong(`${name} of layer ${layer} as [${tokens}, ${heads}, ${headDim}]`, `[${tensor.shape.join(", ")}]`);
      if (tensor) own[name] = tensor.data;
    }
    layers.push(own as LayerRecord);
  }
  const record = { ...other, queryHeads, kvHeads, headDim, tokens, layers };
  try {
    checkRecord(where, record);
  } catch (cause) {
    throw new FormatError({ where, expected: "a record of attention", received: (cause as Error).message, cause });
  }
  return record;
}

async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", data);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
