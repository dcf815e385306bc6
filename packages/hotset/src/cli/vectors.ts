/**
 * Files of vectors: .npy (NumPy), .safetensors (Hugging Face), .fvecs, .bvecs and .ivecs (INRIA's TEXMEX). Read whole, with
 * every length checked against the file's size first. Throws FormatError where a file is damaged or of another kind.
 */
import { extname } from "node:path";
import { attention, bf16ToNumber, FormatError, f16ToNumber, HotsetError, readSafetensors } from "@hotset/core";
import { readWhole } from "@hotset/core/node";

/** `[rows, dim]`, row-major. */
export interface VectorFile {
  readonly rows: number;
  readonly dim: number;
  readonly values: Float32Array | Float64Array | Uint8Array | Int8Array | Int32Array;
}

export const vectorFormats = [".npy", ".safetensors", ".fvecs", ".bvecs", ".ivecs"] as const;

/** `tensor`: which of a safetensors file, where it has several. */
export function readVectors(path: string, tensor?: string): VectorFile {
  const read = readers[extname(path).toLowerCase()];
  if (!read)
    throw new HotsetError("argument", {
      where: path,
      expected: `a file of vectors (${vectorFormats.join(", ")})`,
      received: extname(path) || "no ending",
    });
  return read(new Bytes(path), tensor);
}

const readers: Readonly<Record<string, (file: Bytes, tensor?: string) => VectorFile>> = {
  ".npy": readNpy,
  ".safetensors": readTensor,
  ".fvecs": (file) => readTexmex(file, 4, (bytes) => new Float32Array(bytes)),
  ".ivecs": (file) => readTexmex(file, 4, (bytes) => new Int32Array(bytes)),
  ".bvecs": (file) => readTexmex(file, 1, (bytes) => new Uint8Array(bytes)),
};

/** A file in memory. */
class Bytes {
  readonly path: string;
  readonly data: Uint8Array<ArrayBuffer>;
  readonly view: DataView;

  constructor(path: string) {
    this.path = path;
    try {
      this.data = readWhole(path);
    } catch (cause) {
      if (cause instanceof HotsetError) throw cause;
      throw new HotsetError("argument", { where: path, expected: "a file that can be read", received: (cause as Error).message, cause });
    }
    this.view = new DataView(this.data.buffer);
  }

  get length(): number {
    return this.data.length;
  }

  wrong(expected: string, received: string): FormatError {
    return new FormatError({ where: this.path, expected, received });
  }
}

/** Records of an i32 dimension and so many values; the dimension is the same in all. */
function readTexmex(file: Bytes, width: number, make: (buffer: ArrayBuffer) => VectorFile["values"]): VectorFile {
  if (file.length < 4) throw file.wrong("a dimension of 4 bytes", `${file.length} bytes`);
  const dim = file.view.getInt32(0, true);
  if (dim < 1 || dim > 65536) throw file.wrong("a dimension from 1 to 65536", `${dim}`);
  const record = 4 + width * dim;
  if (file.length % record !== 0) throw file.wrong(`whole records of ${record} bytes (dimension ${dim})`, `${file.length} bytes`);
  const rows = file.length / record;
  const packed = new Uint8Array(rows * width * dim);
  for (let row = 0; row < rows; row++) {
    const own = file.view.getInt32(row * record, true);
    if (own !== dim) throw file.wrong(`dimension ${dim} in row ${row}`, `${own}`);
    packed.set(file.data.subarray(row * record + 4, (row + 1) * record), row * width * dim);
  }
  return { rows, dim, values: make(packed.buffer) };
}

/** Little-endian element types by NumPy's names and safetensors'. */
const elements: Readonly<Record<string, { width: number; make(bytes: Uint8Array<ArrayBuffer>): VectorFile["values"] }>> = {
  "<f4": { width: 4, make: (bytes) => new Float32Array(bytes.buffer) },
  "<f8": { width: 8, make: (bytes) => new Float64Array(bytes.buffer) },
  "<f2": { width: 2, make: (bytes) => Float32Array.from(new Uint16Array(bytes.buffer), f16ToNumber) },
  bf16: { width: 2, make: (bytes) => Float32Array.from(new Uint16Array(bytes.buffer), bf16ToNumber) },
  "<i4": { width: 4, make: (bytes) => new Int32Array(bytes.buffer) },
  "<i8": { width: 8, make: (bytes) => Float64Array.from(new BigInt64Array(bytes.buffer), Number) },
  "|u1": { width: 1, make: (bytes) => bytes },
  "|i1": { width: 1, make: (bytes) => new Int8Array(bytes.buffer) },
};

/** NumPy's arrays, of one or two axes. */
function readNpy(file: Bytes): VectorFile {
  const { shape, dtype, bytes } = attention.readNpy(file.data, file.path);
  return matrix(file, dtype, shape, file.length - bytes.length, file.length);
}

/** safetensors' names of these. */
const stored: Readonly<Record<string, string>> = {
  F32: "<f4",
  F64: "<f8",
  F16: "<f2",
  BF16: "bf16",
  I32: "<i4",
  I64: "<i8",
  U8: "|u1",
  I8: "|i1",
};

function readTensor(file: Bytes, wanted?: string): VectorFile {
  const { tensors } = readSafetensors(file.data, file.path);
  const names = [...tensors.keys()];
  const name = wanted ?? (names.length === 1 ? (names[0] as string) : "");
  const tensor = tensors.get(name);
  if (!tensor)
    throw new HotsetError("argument", {
      where: file.path,
      expected: `--tensor to be one of ${names.slice(0, 12).join(", ")}`,
      received: wanted === undefined ? "none" : JSON.stringify(wanted),
    });
  const { dtype, shape, data } = tensor;
  const from = data.byteOffset - file.data.byteOffset;
  return matrix(file, stored[dtype] ?? dtype, shape, from, from + data.length);
}

function matrix(file: Bytes, type: string, shape: readonly number[], from: number, to: number): VectorFile {
  const element = elements[type];
  if (!element) throw file.wrong(`elements of ${Object.keys(elements).join(", ")}`, type);
  if (shape.length !== 1 && shape.length !== 2) throw file.wrong("one or two axes", `[${shape.join(", ")}]`);
  const [rows, dim] = shape.length === 1 ? [1, shape[0] as number] : (shape as [number, number]);
  if (dim < 1 || dim > 65536) throw file.wrong("vectors of 1 to 65536 components", `${dim}`);
  if (to - from !== rows * dim * element.width)
    throw file.wrong(`${rows * dim * element.width} bytes for [${shape.join(", ")}]`, `${to - from}`);
  // A copy, which is aligned for its elements.
  return { rows, dim, values: element.make(file.data.slice(from, to)) };
}
