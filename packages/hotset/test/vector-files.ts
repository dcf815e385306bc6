/** Files of vectors, made by hand for the tests of the readers. */

const bytesOf = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const joined = (parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

export function npy(descr: string, shape: readonly number[], data: ArrayBufferView, { version = 1, order = "False" } = {}): Uint8Array {
  const dict = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`;
  const start = version === 1 ? 10 : 12;
  const header = `${dict.padEnd(Math.ceil((start + dict.length + 1) / 64) * 64 - start - 1)}\n`;
  const length = version === 1 ? Uint16Array.of(header.length) : Uint32Array.of(header.length);
  return joined([Uint8Array.of(0x93), text("NUMPY"), Uint8Array.of(version, 0), bytesOf(length), text(header), bytesOf(data)]);
}

/** .fvecs, .ivecs or .bvecs by the kind of array. */
export const texmex = (data: Float32Array | Int32Array | Uint8Array, dim: number): Uint8Array =>
  joined(
    Array.from({ length: data.length / dim }, (_, row) => [
      bytesOf(Int32Array.of(dim)),
      bytesOf(data.slice(row * dim, (row + 1) * dim)),
    ]).flat(),
  );

export function safetensors(
  tensors: Readonly<Record<string, { dtype: string; shape: readonly number[]; data: ArrayBufferView }>>,
): Uint8Array {
  let at = 0;
  const entries = Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
    const from = at;
    at += data.byteLength;
    return [name, { dtype, shape, data_offsets: [from, at] }];
  });
  const header = text(JSON.stringify({ __metadata__: { made: "by hand" }, ...Object.fromEntries(entries) }));
  return joined([bytesOf(BigUint64Array.of(BigInt(header.length))), header, ...Object.values(tensors).map(({ data }) => bytesOf(data))]);
}
