/**
 * The one table of element types. Everything that depends on a dtype (storage class, bytes, C and WGSL
 * names, rounding) reads it from here.
 */

/** The typed array that holds each dtype. f16 and bf16 are their 16 bits; block formats are raw bytes. */
export interface Storage {
  f32: Float32Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i8: Int8Array;
  u8: Uint8Array;
  i32: Int32Array;
  u32: Uint32Array;
  u64: BigUint64Array;
  /** One bit an element, bit i of a row at word i >> 5, position i & 31. */
  bits: Uint32Array;
  /** 32 signed 4-bit values and one f16 scale: 18 bytes. */
  i4: Uint8Array;
  q8_0: Uint8Array;
  q4_0: Uint8Array;
  mxfp4: Uint8Array;
}
export type DType = keyof Storage;
export type HostArray = Storage[DType];

export interface DTypeInfo {
  /** Position in this table: the number kernels see. Append only. */
  readonly code: number;
  readonly storage: {
    readonly name: string;
    readonly BYTES_PER_ELEMENT: number;
    new (length: number): HostArray;
    new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): HostArray;
  };
  /** Elements in one block; a row is padded up to whole blocks. */
  readonly blockElements: number;
  /** Bytes of one block. */
  readonly blockBytes: number;
  /** Byte alignment a kernel may rely on. */
  readonly align: number;
  /** Largest relative rounding error of storing a real number in this dtype; 0 for integers. */
  readonly unitRoundoff: number;
  /** C element type, also used by the generated parameter structs. */
  readonly c: string;
}

const row = (
  code: number,
  storage: DTypeInfo["storage"],
  blockElements: number,
  blockBytes: number,
  unitRoundoff: number,
  c: string,
): DTypeInfo => ({
  code,
  storage,
  blockElements,
  blockBytes,
  align: storage.BYTES_PER_ELEMENT,
  unitRoundoff,
  c,
});

export const dtypes: { readonly [D in DType]: DTypeInfo } = {
  f32: row(0, Float32Array, 1, 4, 2 ** -24, "float"),
  f16: row(1, Uint16Array, 1, 2, 2 ** -11, "uint16_t"),
  bf16: row(2, Uint16Array, 1, 2, 2 ** -8, "uint16_t"),
  i8: row(3, Int8Array, 1, 1, 0, "int8_t"),
  u8: row(4, Uint8Array, 1, 1, 0, "uint8_t"),
  i32: row(5, Int32Array, 1, 4, 0, "int32_t"),
  u32: row(6, Uint32Array, 1, 4, 0, "uint32_t"),
  u64: row(7, BigUint64Array, 1, 8, 0, "uint64_t"),
  bits: row(8, Uint32Array, 32, 4, 0, "uint32_t"),
  i4: row(9, Uint8Array, 32, 18, 0, "uint8_t"),
  q8_0: row(10, Uint8Array, 32, 34, 0, "uint8_t"),
  q4_0: row(11, Uint8Array, 32, 18, 0, "uint8_t"),
  mxfp4: row(12, Uint8Array, 32, 17, 0, "uint8_t"),
};

export const dtypeNames = Object.keys(dtypes) as DType[];

export const isDType = (value: unknown): value is DType => typeof value === "string" && Object.hasOwn(dtypes, value);

/** Storage elements (typed-array length) of one row of `elements` values. */
export function rowLength(dtype: DType, elements: number): number {
  const { blockElements, blockBytes, storage } = dtypes[dtype];
  return Math.ceil(elements / blockElements) * (blockBytes / storage.BYTES_PER_ELEMENT);
}

/** Storage elements of a row-major tensor; the last axis is padded to whole blocks. */
export function storageLength(dtype: DType, shape: readonly number[]): number {
  if (shape.length === 0) return rowLength(dtype, 1);
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  return rows * rowLength(dtype, shape[shape.length - 1] as number);
}

export const byteLength = (dtype: DType, shape: readonly number[]): number =>
  storageLength(dtype, shape) * dtypes[dtype].storage.BYTES_PER_ELEMENT;
