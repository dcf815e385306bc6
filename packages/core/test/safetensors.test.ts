/** The one reader of safetensors: what it reads, and what it refuses before a length is used. */
import { FormatError, readSafetensors } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";

function fileOf(header: unknown, data: Uint8Array, claimed?: bigint): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + data.length);
  new DataView(file.buffer).setBigUint64(0, claimed ?? BigInt(text.length), true);
  file.set(text, 8);
  file.set(data, 8 + text.length);
  return file;
}
const header = {
  __metadata__: { made: "here" },
  a: { dtype: "F32", shape: [2, 1], data_offsets: [0, 8] },
  b: { dtype: "BF16", shape: [], data_offsets: [8, 10] },
  later: { dtype: "F8_E4M3", shape: [3], data_offsets: [10, 12] },
  empty: { dtype: "I64", shape: [0, 5], data_offsets: [3, 3] },
};
const data = Uint8Array.from({ length: 12 }, (_, i) => i);
const one = (entry: unknown) => fileOf({ x: entry }, data);

describe("readSafetensors", () => {
  it("names tensors as views of the file, with dtypes that it does not know", () => {
    const file = fileOf(header, data);
    const { tensors, metadata, data: all } = readSafetensors(file);
    expect(metadata).toEqual({ made: "here" });
    expect([...tensors.keys()]).toEqual(["a", "b", "later", "empty"]);
    expect(tensors.get("a")).toMatchObject({ dtype: "F32", shape: [2, 1] });
    expect([...tensors].map(([, tensor]) => [...tensor.data])).toEqual([[0, 1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11], []]);
    expect(all).toEqual(data);
    expect(tensors.get("b")?.data.buffer).toBe(file.buffer);
    // Also where it lies inside a larger buffer.
    const inside = new Uint8Array(file.length + 3);
    inside.set(file, 3);
    expect([...(readSafetensors(inside.subarray(3)).tensors.get("b")?.data ?? [])]).toEqual([8, 9]);
    // And in a Buffer, whose own slices are views: a slice of a tensor is a copy.
    const slice = readSafetensors(Buffer.from(file)).tensors.get("a")?.data.slice();
    expect([slice?.byteOffset, slice?.buffer.byteLength]).toEqual([0, 8]);
  });

  it.each([
    [new Uint8Array(7), "a header length of 8 bytes but received 7 bytes"],
    [fileOf({}, data, 15n), "a header of 15 bytes but received 14"],
    [fileOf({}, data, 2n ** 63n), "a header of 9223372036854775808 bytes"],
    [fileOf("[]", data), "a header with tensors"],
    [fileOf("{", data), "a header in JSON"],
    [fileOf({ __metadata__: 3 }, data), "metadata of texts but received 3"],
    [one(null), "dtype, shape and data_offsets of x but received null"],
    [one({ dtype: 4, shape: [], data_offsets: [0, 4] }), "dtype, shape and data_offsets of x"],
    [one({ dtype: "F32", shape: [-1], data_offsets: [0, 4] }), "shape"],
    [one({ dtype: "F32", shape: [1.5], data_offsets: [0, 6] }), "shape"],
    [one({ dtype: "F32", shape: [1], data_offsets: [0, 4, 8] }), "data_offsets"],
    [one({ dtype: "F32", shape: [1], data_offsets: [8, 4] }), "x inside the 12 bytes of data but received bytes 8 to 4"],
    [one({ dtype: "F32", shape: [3], data_offsets: [4, 16] }), "x inside the 12 bytes of data but received bytes 4 to 16"],
    [one({ dtype: "F32", shape: [2], data_offsets: [0, 4] }), "8 bytes of x, F32 [2] but received 4"],
    [one({ dtype: "F32", shape: [2 ** 53 - 1, 2 ** 53 - 1], data_offsets: [0, 4] }), "bytes of x, F32"],
  ])("refuses file %#", (file, message) => {
    expect(() => readSafetensors(file, "a.safetensors")).toThrow(FormatError);
    expect(() => readSafetensors(file, "a.safetensors")).toThrow(`a.safetensors: expected `);
    expect(() => readSafetensors(file, "a.safetensors")).toThrow(message);
  });

  it("refuses a header above its limit without reading it", () => {
    const file = new Uint8Array(100e6 + 20);
    new DataView(file.buffer).setBigUint64(0, BigInt(100e6 + 1), true);
    expect(() => readSafetensors(file)).toThrow("a header of at most 100000000 bytes but received 100000001");
  });

  it("cut anywhere is a format error, and damaged anywhere is one or holds what lies in the file", () => {
    const file = fileOf(header, data);
    for (let end = 0; end < file.length; end++) expect(() => readSafetensors(file.subarray(0, end))).toThrow(FormatError);
    const random = new Random("damaged safetensors");
    for (let i = 0; i < 5000; i++) {
      const damaged = file.slice();
      for (let k = 0; k <= random.below(3); k++) damaged[random.below(file.length)] = random.below(256);
      try {
        for (const [, tensor] of readSafetensors(damaged).tensors) expect(tensor.data.length).toBeLessThanOrEqual(data.length);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
  });
});
