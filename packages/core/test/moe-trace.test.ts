import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { FormatError, moe } from "@hotset/core";
import { Random } from "@hotset/core/testing/cases";
import { describe, expect, it } from "vitest";

const trace = moe.syntheticMoeTrace({ seed: "container", layers: 3, experts: 10, topK: 2, sequences: 4, length: 7 });
const bytes = moe.writeMoeTrace(trace);
const headerLength = new DataView(bytes.buffer).getUint32(8, true);

/** The file with its header's text changed. */
function withHeader(change: (header: Record<string, unknown>) => unknown): Uint8Array {
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + headerLength)));
  const text = new TextEncoder().encode(JSON.stringify(change(header) ?? header));
  const out = new Uint8Array(12 + text.length + bytes.length - 12 - headerLength);
  out.set(bytes.subarray(0, 8));
  new DataView(out.buffer).setUint32(8, text.length, true);
  out.set(text, 12);
  out.set(bytes.subarray(12 + headerLength), 12 + text.length);
  return out;
}
type Entry = Record<string, unknown>;
const arrayOf = (header: Entry, name: string): Entry => (header.arrays as Entry[]).find((entry) => entry.name === name) as Entry;

describe("MOETRC1", () => {
  it("gives back what was written, gzipped or not", async () => {
    expect(moe.parseMoeTrace(bytes)).toEqual(trace);
    expect(await moe.openMoeTrace(bytes)).toEqual(trace);
    expect(await moe.openMoeTrace(gzipSync(bytes))).toEqual(trace);
    const wide = moe.syntheticMoeTrace({ seed: "wide", layers: 2, experts: 300, topK: 5, sequences: 1, length: 9 });
    expect(wide.ids.BYTES_PER_ELEMENT).toBe(2);
    expect(moe.parseMoeTrace(moe.writeMoeTrace(wide))).toEqual(wide);
  });

  it("reads experts by layer and rank as well", () => {
    const { layers, topK, tokens } = trace;
    const turned = withHeader((header) => {
      arrayOf(header, "ids").shape = [layers, topK, tokens];
    });
    const at = turned.length - trace.ids.length;
    for (let i = 0; i < trace.ids.length; i++) {
      const [t, l, k] = [Math.floor(i / (layers * topK)), Math.floor(i / topK) % layers, i % topK];
      turned[at + (l * topK + k) * tokens + t] = trace.ids[i] as number;
    }
    expect(moe.parseMoeTrace(turned)).toEqual(trace);
  });

  it("refuses a file cut at any byte, gzipped or not", async () => {
    for (let length = 0; length < bytes.length; length++)
      expect(() => moe.parseMoeTrace(bytes.subarray(0, length)), `${length} bytes`).toThrow(FormatError);
    const zipped = gzipSync(bytes);
    for (let length = 0; length < zipped.length; length++)
      await expect(moe.openMoeTrace(zipped.subarray(0, length)), `${length} bytes`).rejects.toThrow(FormatError);
  });

  it("refuses bytes behind the arrays, and a file that unfolds to more than it may", async () => {
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    expect(() => moe.parseMoeTrace(longer)).toThrow(/bytes of arrays but received/);
    const bomb = gzipSync(new Uint8Array(5_000_000));
    await expect(moe.openMoeTrace(bomb, { maxBytes: 1_000_000 })).rejects.toThrow(/at most 1000000 bytes when unzipped but received more/);
  });

  it("says what is wrong with a header that lies", () => {
    const refused = (change: (header: Entry) => unknown, message: RegExp) => {
      expect(() => moe.parseMoeTrace(withHeader(change), "file")).toThrow(FormatError);
      expect(() => moe.parseMoeTrace(withHeader(change), "file")).toThrow(message);
    };
    const setting = (name: string, value: unknown) => (header: Entry) => {
      header[name] = value;
    };
    const settingOf = (array: string, name: string, value: unknown) => (header: Entry) => {
      arrayOf(header, array)[name] = value;
    };
    refused(() => [], /header: expected a JSON object but received an object/);
    refused(() => 7, /expected a JSON object but received 7/);
    refused(setting("layers", 0), /file: layers: expected a whole number from 1 to 4096 but received 0/);
    refused(setting("layers", "3"), /file: layers: .* received "3"/);
    refused(setting("experts", 1e9), /file: experts/);
    refused(setting("topk", 11), /file: topk: expected a whole number from 1 to 10/);
    refused(setting("tokens", 1.5), /file: tokens/);
    refused(setting("tokens", 29), /file: ids: expected the shape \[3, 2, 29\] or \[29, 3, 2\]/);
    refused(setting("arrays", 5), /file: arrays: expected a list/);
    refused(setting("arrays", []), /expected 0 bytes of arrays/);
    refused(setting("arrays", [null]), /arrays\[0\]: expected a name/);
    refused(setting("sequences", [{ start: 0, len: 30 }]), /sequences\[0\]\.len: expected a whole number from 0 to 28/);
    refused(
      setting("sequences", [
        { start: 3, len: 5 },
        { start: 7, len: 1 },
      ]),
      /sequences\[1\]\.start: expected a whole number from 8/,
    );
    refused(settingOf("ids", "name", "other"), /expected one named "ids" but received none/);
    refused(settingOf("ids", "dtype", "f64"), /expected a dtype of u8/);
    refused(settingOf("ids", "dtype", "toString"), /expected a dtype of u8/);
    refused(settingOf("ids", "dtype", "i8"), /file: ids: expected a dtype of u8, u16, u32 but received i8/);
    refused(settingOf("ids", "offset", 1e12), /offset/);
    refused(settingOf("ids", "offset", -1), /offset/);
    refused(settingOf("ids", "bytes", 1), /expected 168 bytes for its shape but received 1/);
    refused(settingOf("ids", "shape", [2 ** 31 - 1, 2 ** 31 - 1, 2 ** 31 - 1]), /bytes for its shape/);
    refused(settingOf("tok", "shape", [4, 7]), /file: tok: expected the shape \[28\]/);
  });

  it("refuses experts that do not exist, and one named twice", () => {
    const wrong = bytes.slice();
    wrong[wrong.length - 1] = 10;
    expect(() => moe.parseMoeTrace(wrong, "file")).toThrow(/file: ids\[167\]: expected experts below 10 but received 10/);
    wrong[wrong.length - 1] = wrong[wrong.length - 2] as number;
    expect(() => moe.parseMoeTrace(wrong, "file")).toThrow(/file: token 27, layer 2: expected distinct experts but received \d twice/);
  });

  it("gives a trace or a FormatError for ten thousand damaged files", () => {
    const random = new Random("damage");
    for (let i = 0; i < 10_000; i++) {
      const damaged = bytes.slice(0, random.uniform() < 0.1 ? random.below(bytes.length) : bytes.length);
      for (let n = 0; n <= random.below(4) && damaged.length > 0; n++)
        damaged[random.below(random.uniform() < 0.7 ? Math.min(damaged.length, 12 + headerLength) : damaged.length)] = random.below(256);
      try {
        const { ids, tokens, layers, topK } = moe.parseMoeTrace(damaged);
        expect(ids.length).toBe(tokens * layers * topK);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
  });

  const shared = fileURLToPath(new URL("../../../../shared/data/moe/gpt-oss-20b.mini.moetrc.gz", import.meta.url));
  it.skipIf(!existsSync(shared))("reads a trace of gpt-oss-20b (needs ../shared/data)", async () => {
    const { layers, experts, topK, tokens, sequences, tokenIds } = await moe.openMoeTrace(readFileSync(shared));
    expect([layers, experts, topK, tokens, sequences.length, tokenIds?.length]).toEqual([24, 32, 4, 1920, 12, 1920]);
  });
});

describe("traces as text", () => {
  const { tokens, layers, topK, ids } = trace;
  const rows = (t: number, l: number) => [...ids.subarray((t * layers + l) * topK, (t * layers + l + 1) * topK)];
  const nested = Array.from({ length: tokens }, (_, t) => Array.from({ length: layers }, (_, l) => rows(t, l)));
  const csv = (columns: string, line: (t: number, l: number, e: number) => string): string =>
    [columns, ...nested.flatMap((token, t) => token.flatMap((used, l) => used.map((e) => line(t, l, e))))].join("\n");

  it("reads CSV with and without tokens", () => {
    for (const text of [
      csv("token,layer,expert", (t, l, e) => `${t},${l},${e}`),
      csv("expert, Layer", (_, l, e) => `${e}, ${l}`).replaceAll("\n", "\r\n"),
    ])
      expect(moe.moeTraceFromCsv(text, { experts: 10 })).toMatchObject({ ids, tokens, layers, topK, experts: 10 });
  });

  it("reads JSON, bare and with more", () => {
    expect(moe.moeTraceFromJson(JSON.stringify(nested))).toMatchObject({ ids, tokens, layers, topK });
    const { sequences, tokenIds } = trace;
    const document = {
      routed: nested,
      experts: 10,
      model: "m",
      tokenIds: [...(tokenIds as Uint32Array)],
      sequences: sequences.map(({ start, length }) => ({ start, len: length })),
    };
    expect(moe.moeTraceFromJson(JSON.stringify(document))).toEqual({ ...trace, model: "m" });
  });

  it("refuses what is no trace", () => {
    const refused = (work: () => unknown, message: RegExp) => {
      expect(work).toThrow(FormatError);
      expect(work).toThrow(message);
    };
    refused(() => moe.moeTraceFromCsv(""), /expected the columns layer and expert in the first line but received ""/);
    refused(() => moe.moeTraceFromCsv("layer,expert"), /at least one token/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n0,1,2"), /line 2: expected 2 cells but received 3/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n0,-1"), /line 2: expected a whole number/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n4096,1"), /line 2: expected a whole number from 0 to 4095/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n1,1"), /token 0, layer 0: expected a list with entries/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n0,1\n0,1"), /expected distinct experts but received 1 twice/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n0,1\n0,2\n1,3"), /token 0, layer 1: expected 2 entries, as before but received 1/);
    refused(() => moe.moeTraceFromCsv("layer,expert\n0,7", { experts: 4 }), /from 0 to 3 but received 7/);
    refused(() => moe.moeTraceFromJson("{"), /expected JSON/);
    refused(() => moe.moeTraceFromJson("null"), /\[tokens\]\[layers\]\[k\]/);
    refused(() => moe.moeTraceFromJson("[]"), /at least one token/);
    refused(() => moe.moeTraceFromJson("[[[0.5]]]"), /whole number/);
    refused(() => moe.moeTraceFromJson("[[[0]],[[1],[2]]]"), /token 1: expected 1 entries/);
    refused(() => moe.moeTraceFromJson('{"routed":[[[0]]],"tokenIds":[1,2]}'), /tokenIds: expected 1 entries/);
    refused(() => moe.moeTraceFromJson('{"routed":[[[0]]],"experts":0}'), /experts/);
  });
});

describe("a trace made from a seed", () => {
  it("is the same from the same seed, and has the habits it was asked for", () => {
    const make = (settings: object) =>
      moe.syntheticMoeTrace({ seed: "habits", layers: 2, experts: 16, topK: 2, sequences: 5, length: 400, ...settings });
    expect(make({})).toEqual(make({}));
    const reused = ({ ids, layers, topK, tokens }: moe.MoeTrace): number => {
      let again = 0;
      for (let t = 1; t < tokens; t++)
        for (let i = 0; i < layers * topK; i++) {
          const before = ids.subarray(
            ((t - 1) * layers + Math.floor(i / topK)) * topK,
            ((t - 1) * layers + Math.floor(i / topK) + 1) * topK,
          );
          if (before.includes(ids[t * layers * topK + i] as number)) again++;
        }
      return again / (tokens * layers * topK);
    };
    const uniform = { skew: 0, sticky: 0, bound: 0 };
    // Two of sixteen at random: an eighth.
    expect(Math.abs(reused(make(uniform)) - 0.125)).toBeLessThan(0.02);
    expect(reused(make({ ...uniform, sticky: 0.5 }))).toBeGreaterThan(0.4);
    expect(reused(make({ ...uniform, skew: 1.5 }))).toBeGreaterThan(0.25);
  });
});
