import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 as zlibCrc32 } from "node:zlib";
import { createHotset, FormatError, HotsetError, search } from "@hotset/core";
import { openIndex, saveIndex } from "@hotset/core/node";
import { Random } from "@hotset/core/testing/cases";
import { afterAll, describe, expect, it } from "vitest";
import { crc32 } from "../src/search/flat-index/crc32.js";

const hotset = await createHotset();
const { FlatIndex } = search;
const folder = mkdtempSync(join(tmpdir(), "hotset-index-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const dim = 12;
const random = new Random("files");
const vectors = random.values(300 * dim, () => random.normal());

function filled(dtype: "f32" | "f16" | "i8", names: "numbers" | "strings", rows = 300): search.FlatIndex {
  const index = new FlatIndex(hotset, { dim, dtype, metric: "l2", certify: true });
  index.add(vectors.subarray(0, rows * dim), names === "strings" ? Array.from({ length: rows }, (_, i) => `ünï ${i} ☃`) : undefined);
  return index;
}
const answers = (index: search.FlatIndex) =>
  index.search(vectors.subarray(0, 6 * dim), { k: 9 }).map(({ ids, scores }) => ({ ids, scores: [...scores] }));
const load = (bytes: Uint8Array) => FlatIndex.fromBytes(bytes, { hotset, certify: true });

/** FormatError, or an index: anything else fails the test. */
async function attempt(bytes: Uint8Array): Promise<search.FlatIndex | undefined> {
  try {
    return await load(bytes);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

describe("an index as bytes", () => {
  it.each(["f32", "f16", "i8"] as const)("comes back as it was (%s)", async (dtype) => {
    for (const names of ["numbers", "strings"] as const) {
      const index = filled(dtype, names);
      index.remove([...index.ids()].filter((_, i) => i % 7 === 3));
      const expected = answers(index);
      const again = await load(index.toBytes());
      expect([again.dim, again.metric, again.dtype, again.size, again.dead]).toEqual([dim, "l2", dtype, index.size, 0]);
      expect(answers(again)).toEqual(expected);
      expect(again.toBytes()).toEqual(index.toBytes());
      // It goes on as the first would: the same next number, the same rows.
      if (names === "numbers") expect(again.add(vectors.subarray(0, dim))).toEqual(index.add(vectors.subarray(0, dim)));
      else expect(() => again.add(vectors.subarray(0, dim), ["ünï 0 ☃"])).toThrow(/again/);
      expect(answers(again)).toEqual(answers(index));
    }
  });

  it("without a row, and with ids that are empty or begin with a byte order mark", async () => {
    const empty = new FlatIndex(hotset, { dim });
    const again = await load(empty.toBytes());
    expect([again.size, again.search(vectors.subarray(0, dim))[0]?.ids]).toEqual([0, []]);
    expect(again.add(vectors.subarray(0, dim))).toEqual([0]);
    const names = new FlatIndex(hotset, { dim });
    names.add(vectors.subarray(0, 2 * dim), ["", "\ufeffmark"]);
    expect([...(await load(names.toBytes())).ids()]).toEqual(["", "\ufeffmark"]);
    names.remove(["", "\ufeffmark"]);
    expect((await load(names.toBytes())).size).toBe(0);
    expect(() => names.add(vectors.subarray(0, dim), ["\ud800"])).toThrow(/whole characters/);
  });

  it("has the checksum that zlib computes", () => {
    if (typeof zlibCrc32 !== "function") return;
    for (const length of [0, 1, 7, 8, 9, 63, 1000]) {
      const bytes = Uint8Array.from({ length }, () => random.below(256));
      expect(crc32(bytes)).toBe(zlibCrc32(bytes));
      expect(crc32(bytes.subarray(3), crc32(bytes.subarray(0, 3)))).toBe(zlibCrc32(bytes));
    }
  });
});

describe("damaged bytes are refused with FormatError", () => {
  const bytes = filled("f32", "strings", 40).toBytes();
  const numbers = filled("f16", "numbers", 5).toBytes();
  const headerBytes = new DataView(bytes.buffer).getUint32(12, true);

  it("cut anywhere", async () => {
    for (let length = 0; length <= headerBytes; length++) expect(await attempt(bytes.slice(0, length)), `${length} bytes`).toBeUndefined();
    for (let length = headerBytes; length < bytes.length; length += 37) expect(await attempt(bytes.slice(0, length))).toBeUndefined();
    for (let length = 0; length < numbers.length; length++) expect(await attempt(numbers.slice(0, length))).toBeUndefined();
    expect(await attempt(Uint8Array.from([...bytes, 0]))).toBeUndefined();
  });

  it("with any byte changed", async () => {
    for (let at = 0; at < bytes.length; at++) {
      const changed = bytes.slice();
      changed[at] = (changed[at] as number) ^ (1 << (at % 8));
      expect(await attempt(changed), `byte ${at}`).toBeUndefined();
    }
  });

  it("ten thousand times at random: bytes overwritten, moved, left out, put in", async () => {
    for (let round = 0; round < 10_000; round++) {
      const source = random.below(2) ? bytes : numbers;
      let changed = source.slice();
      const [from, to, length] = [random.below(source.length), random.below(source.length), 1 + random.below(16)];
      const kind = random.below(4);
      if (kind === 0) for (let i = 0; i < length; i++) changed[(from + i) % changed.length] = random.below(256);
      else if (kind === 1) changed.copyWithin(to, from, from + length);
      else if (kind === 2)
        changed = Uint8Array.from([...source.subarray(0, from), ...source.subarray(Math.min(source.length, from + length))]);
      else changed = Uint8Array.from([...source.subarray(0, from), ...source.subarray(to, to + length), ...source.subarray(from)]);
      if (changed.length === source.length && changed.every((byte, i) => byte === source[i])) continue;
      expect(await attempt(changed), `round ${round}`).toBeUndefined();
    }
  });

  it("with a header that lies and a checksum that agrees: refused, or an index of what is there", async () => {
    const seal = (changed: Uint8Array): Uint8Array => {
      const view = new DataView(changed.buffer);
      const length = view.getUint32(12, true);
      if (length >= 64 && length <= changed.length) view.setUint32(length - 4, crc32(changed.subarray(0, length - 4)), true);
      return changed;
    };
    const odd = [0, 1, 2, 3, 4, 63, 64, 65, 127, 128, 2 ** 16, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
    const long = [...odd, -1, -64, 0.5, 1e15, 2 ** 53, 1e300, Number.NaN, Number.POSITIVE_INFINITY];
    let refused = 0;
    for (const source of [bytes, numbers]) {
      const end = new DataView(source.buffer).getUint32(12, true) - 4;
      for (let at = 8; at < end; at += 4) {
        for (const value of odd) {
          const changed = source.slice();
          new DataView(changed.buffer).setUint32(at, value, true);
          const index = await attempt(seal(changed));
          if (!index) refused++;
          else index.search(new Float32Array(index.dim).fill(1));
        }
        for (const value of at % 8 ? [] : long) {
          const changed = source.slice();
          new DataView(changed.buffer).setFloat64(at, value, true);
          const index = await attempt(seal(changed));
          if (!index) refused++;
          else index.search(new Float32Array(index.dim).fill(1));
        }
      }
    }
    expect(refused).toBeGreaterThan(900);
  });

  it("says what is wrong", async () => {
    await expect(load(new Uint8Array(10))).rejects.toThrow(/header of at least 128 bytes but received 10 bytes.* build it again/);
    await expect(load(new TextEncoder().encode("PK".padEnd(200)))).rejects.toThrow(/starts with HOTSETIX/);
    const newer = bytes.slice();
    newer[8] = 2;
    await expect(load(newer)).rejects.toThrow(/version 1 but received 2/);
    await expect(load(bytes.slice(0, -64))).rejects.toThrow(/bytes, as the header says/);
    const flipped = bytes.slice();
    flipped[headerBytes + 5] = (flipped[headerBytes + 5] as number) ^ 1;
    await expect(load(flipped)).rejects.toThrow(/rows with checksum/);
  });
});

describe("an index as a file", () => {
  it("is written whole, and opened", async () => {
    const path = join(folder, "some.index");
    const index = filled("f32", "strings");
    saveIndex(index, path);
    expect(new Uint8Array(readFileSync(path))).toEqual(index.toBytes());
    expect(readdirSync(folder)).toEqual(["some.index"]);
    const again = await openIndex(path, { hotset, certify: true });
    expect(answers(again)).toEqual(answers(index));
    again.remove("ünï 7 ☃");
    saveIndex(again, path);
    expect((await openIndex(path, { hotset })).has("ünï 7 ☃")).toBe(false);
  });

  it("leaves what was there when it cannot be written, and no temporary file", async () => {
    const path = join(folder, "taken");
    mkdirSync(path);
    expect(() => saveIndex(filled("i8", "numbers"), path)).toThrow(HotsetError);
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    expect(() => saveIndex(filled("i8", "numbers"), join(folder, "nowhere", "x"))).toThrow(/to write .*nowhere/);
    expect(existsSync(join(folder, "nowhere"))).toBe(false);
    await expect(openIndex(join(folder, "absent"), { hotset })).rejects.toThrow(/to read .*absent/);
    await expect(openIndex(path, { hotset })).rejects.toThrow(HotsetError);
  });

  it("that is damaged is refused by its path", async () => {
    const path = join(folder, "bad.index");
    const bytes = filled("i8", "numbers").toBytes();
    writeFileSync(path, bytes.subarray(0, bytes.length - 1));
    await expect(openIndex(path, { hotset })).rejects.toThrow(FormatError);
    await expect(openIndex(path, { hotset })).rejects.toThrow(/bad\.index: expected \d+ bytes, as the header says/);
    writeFileSync(path, "");
    await expect(openIndex(path, { hotset })).rejects.toThrow(FormatError);
  });
});
