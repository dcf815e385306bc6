import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, HotsetError, toBf16, toF16 } from "@hotset/core";
import { Random } from "@hotset/core/testing/cases";
import { afterAll, describe, expect, it } from "vitest";
import { readVectors } from "../src/cli/vectors.js";
import { npy, safetensors, texmex } from "./vector-files.js";

const folder = mkdtempSync(join(tmpdir(), "hotset-vectors-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const [rows, dim] = [4, 3];
const numbers = [1, -2, 3, 4.5, 5, 6, 7, 8, -9, 10, 11, 12];
const f32 = Float32Array.from(numbers);
const whole = numbers.map(Math.trunc);
const positive = whole.map(Math.abs);

const good: [string, Uint8Array, readonly number[]][] = [
  ["a.fvecs", texmex(f32, dim), numbers],
  ["a.bvecs", texmex(Uint8Array.from(positive), dim), positive],
  ["a.ivecs", texmex(Int32Array.from(whole), dim), whole],
  ["f4.npy", npy("<f4", [rows, dim], f32), numbers],
  ["f8.npy", npy("<f8", [rows, dim], Float64Array.from(numbers), { version: 2 }), numbers],
  ["f2.npy", npy("<f2", [rows, dim], toF16(f32), { version: 3 }), numbers],
  ["i4.npy", npy("<i4", [rows, dim], Int32Array.from(whole)), whole],
  ["i8.npy", npy("<i8", [rows, dim], BigInt64Array.from(whole, BigInt)), whole],
  ["u1.npy", npy("|u1", [rows, dim], Uint8Array.from(positive)), positive],
  ["i1.npy", npy("|i1", [rows, dim], Int8Array.from(whole)), whole],
  ["f32.safetensors", safetensors({ x: { dtype: "F32", shape: [rows, dim], data: f32 } }), numbers],
  ["bf16.safetensors", safetensors({ x: { dtype: "BF16", shape: [rows, dim], data: toBf16(f32) } }), numbers],
  ["f16.safetensors", safetensors({ x: { dtype: "F16", shape: [rows, dim], data: toF16(f32) } }), numbers],
];

describe("files of vectors", () => {
  it.each(good)("%s", (name, bytes, expected) => {
    const read = readVectors(file(name, bytes));
    expect([read.rows, read.dim, [...read.values]]).toEqual([rows, dim, [...expected]]);
  });

  it("with one axis are one vector, and with several tensors one is named", () => {
    expect(readVectors(file("one.npy", npy("<f4", [12], f32)))).toMatchObject({ rows: 1, dim: 12 });
    const path = file(
      "two.safetensors",
      safetensors({ x: { dtype: "F32", shape: [rows, dim], data: f32 }, y: { dtype: "F32", shape: [2, 6], data: f32 } }),
    );
    expect(readVectors(path, "y")).toMatchObject({ rows: 2, dim: 6 });
    expect(() => readVectors(path)).toThrow(/--tensor to be one of x, y but received none/);
    expect(() => readVectors(path, "z")).toThrow(/--tensor to be one of x, y but received "z"/);
  });

  it("cut anywhere are refused", () => {
    for (const [name, bytes] of good)
      for (let length = 0; length < bytes.length; length++) {
        // Whole records are a shorter file of the same kind, which nothing in it contradicts.
        const record = /\.(.)vecs$/.exec(name)?.[1] === "b" ? 4 + dim : 4 + 4 * dim;
        if (name.includes("vecs") && length > 0 && length % record === 0) continue;
        expect(() => readVectors(file(`cut-${name}`, bytes.slice(0, length))), `${name} at ${length}`).toThrow(FormatError);
      }
  });

  it("damaged at random are refused or read, and never anything else", () => {
    const random = new Random("vector files");
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const [name, bytes] = random.pick(good);
      const changed = bytes.slice();
      for (let i = random.below(4); i >= 0; i--) changed[random.below(Math.min(changed.length, 140))] = random.below(256);
      try {
        const { rows: count, dim: width, values } = readVectors(file(`changed-${name}`, changed));
        expect(values.length).toBe(count * width);
      } catch (error) {
        expect(error).toBeInstanceOf(HotsetError);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1000);
  });

  it.each([
    ["other.npy", npy(">f4", [rows, dim], f32), /elements of .* but received >f4/],
    ["fortran.npy", npy("<f4", [rows, dim], f32, { order: "True" }), /fortran_order False.* but received True/],
    ["axes.npy", npy("<f4", [2, 2, 3], f32), /one or two axes but received \[2, 2, 3\]/],
    ["long.npy", npy("<f4", [9e15, dim], f32), /bytes for \[9000000000000000, 3\] but received 48/],
    ["none.npy", npy("<f4", [4, 0], new Float32Array(0)), /1 to 65536 components but received 0/],
    [
      "dims.fvecs",
      Uint8Array.from([...texmex(f32, 3), ...texmex(f32.slice(0, 3), 3).fill(9, 0, 1)]),
      /dimension 3 in row 4 but received 9/,
    ],
    ["less.fvecs", texmex(f32, 3).fill(255, 3, 4), /dimension from 1 to 65536 but received -/],
    ["a.txt", new Uint8Array(3), /a file of vectors \(\.npy, .*but received \.txt/],
    ["list.safetensors", Uint8Array.from([2, 0, 0, 0, 0, 0, 0, 0, 91, 93]), /a header with tensors/],
    ["huge.safetensors", new Uint8Array(16).fill(255), /a header of 18446744073709551615 bytes but received 8/],
  ])("%s is refused with the reason", (name, bytes, message) => {
    expect(() => readVectors(file(name, bytes))).toThrow(message);
    expect(() => readVectors(join(folder, `absent-${name}`))).toThrow(HotsetError);
  });
});
