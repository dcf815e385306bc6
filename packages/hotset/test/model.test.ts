/** Models decoded through plans give the text of a plain forward; damaged files give FormatError. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createHotset, FormatError, HotsetError, js, type Model, openModel, readModel } from "@hotset/core";
import { Random } from "@hotset/core/testing/cases";
import { native } from "@hotset/kernels-native";
import { wasm } from "@hotset/kernels-wasm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PlainModel } from "./support/plain-model.js";
import { tinyModel, tinyTokenizer } from "./support/tiny-model.js";

const weights = fileURLToPath(new URL("../../../../shared/data/weights", import.meta.url));
const real = existsSync(`${weights}/stories260K.bin`);
const backends = ["js", "native", "wasm"] as const;

const hotset = await createHotset({ backends: [() => native(), () => wasm(), js()] });
afterAll(() => hotset.dispose());

const bytes = tinyModel("a tiny model");
const tokenizer = tinyTokenizer();

/** The tokens that a plain forward gives. */
const plainIds = (prompt: readonly number[], count: number): number[] => new PlainModel(bytes).greedy(prompt, count);

async function idsOf(model: Model, prompt: string, maxTokens: number): Promise<{ ids: number[]; text: string }> {
  const ids: number[] = [];
  let text = "";
  for await (const token of model.tokens(prompt, { maxTokens })) {
    if (token.id >= 0) ids.push(token.id);
    text += token.text;
  }
  return { ids, text };
}

describe.each(backends)("a model on %s", (backend) => {
  it("made by seed gives the tokens of a plain forward", async () => {
    const model = await openModel(bytes, { tokenizer, hotset, backend });
    const prompt = "ab abc";
    const wanted = plainIds(model.tokenizer.encode(prompt), 60);
    const { ids } = await idsOf(model, prompt, 60);
    expect(ids.length).toBeGreaterThan(20);
    expect(ids).toEqual(wanted.slice(0, ids.length));
    // Whatever stopped it is a token that ends a text.
    if (ids.length < 60) expect([1, 2]).toContain(wanted[ids.length]);
    model.dispose();
  });

  it("gives the same after a prompt of several chunks, and again after a first text", async () => {
    const model = await openModel(bytes, { tokenizer, hotset, backend });
    const prompt = "abcd ".repeat(18);
    const input = model.tokenizer.encode(prompt);
    expect(input.length).toBeGreaterThan(64);
    const wanted = plainIds(input, 20);
    for (let again = 0; again < 2; again++) {
      const { ids } = await idsOf(model, prompt, 20);
      expect(ids).toEqual(wanted.slice(0, ids.length));
    }
    model.dispose();
  });

  it.skipIf(!real)("stories260K gives the text of a plain forward for 200 tokens (needs ../shared/data/weights)", async () => {
    const [file, pieces] = [readFileSync(`${weights}/stories260K.bin`), readFileSync(`${weights}/tok512.bin`)];
    const model = await openModel(file, { tokenizer: pieces, hotset, backend });
    const wanted = new PlainModel(file).greedy(model.tokenizer.encode(""), 200);
    const { ids, text } = await idsOf(model, "", 200);
    expect(ids).toEqual(wanted);
    expect(text).toMatch(/^Once upon a time, there was a little girl named Lily\. She loved to play outside in the park\./);
    model.dispose();
  });
});

describe("generation", () => {
  let model: Model;
  beforeAll(async () => {
    model = await openModel(bytes, { tokenizer, hotset, backend: "js" });
  });
  afterAll(() => model.dispose());
  const refused = (promise: Promise<unknown>, message: RegExp) => expect(promise).rejects.toThrow(message);
  const all = async (prompt: string, settings = {}): Promise<string> => {
    let text = "";
    for await (const piece of model.generate(prompt, { maxTokens: 12, ...settings })) text += piece;
    return text;
  };

  it("is the same for the same seed, and another for another", async () => {
    const draw = (seed: number) => all("abc", { temperature: 2, seed });
    expect(await draw(1)).toBe(await draw(1));
    expect(new Set([await draw(1), await draw(2), await draw(3)]).size).toBeGreaterThan(1);
  });

  it("stops at a signal, and can go on with another text", async () => {
    const control = new AbortController();
    let pieces = 0;
    const run = async () => {
      for await (const _ of model.tokens("abc", { signal: control.signal, maxTokens: 50 })) if (++pieces === 3) control.abort();
    };
    await refused(run(), /abort/i);
    expect(pieces).toBe(3);
    expect(await all("abc")).toBe(await all("abc"));
  });

  it("refuses prompts beyond the context, a second loop, and settings out of range", async () => {
    await refused(all("ab".repeat(200)), /a prompt of at most \d+ tokens \(the context is 128\) but received \d+ tokens/);
    const loop = model.tokens("abc");
    await loop.next();
    await refused(all("abc"), /not generating/);
    await loop.return();
    await refused(all("abc", { temperature: -1 }), /temperature/);
    await refused(all("abc", { seed: 1.5 }), /seed/);
    await refused(all("abc", { maxTokens: -1 }), /maxTokens/);
    expect((await all("abc")).length).toBeGreaterThan(0);
  });

  it("fills the context to its end and no further", async () => {
    const { ids } = await idsOf(model, "abc", 1000);
    const prompt = model.tokenizer.encode("abc").length;
    expect(prompt + ids.length).toBeLessThanOrEqual(129);
  });

  it("needs a tokenizer, and refuses one of another vocabulary", async () => {
    await refused(openModel(bytes, { hotset }), /expected a tokenizer but received none/);
    await refused(openModel(bytes, { hotset, tokenizer: tokenizer.subarray(0, tokenizer.length - 1) }), /of token/);
    await refused(openModel(bytes, { hotset, tokenizer, context: 129 }), /context/);
  });
});

describe("damaged files", () => {
  /** Reads without a crash: a model, or FormatError. */
  const read = (work: () => unknown): boolean => {
    try {
      work();
      return true;
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      return false;
    }
  };

  it("cut at every byte of the header, and in the weights", () => {
    for (let end = 0; end < 64; end++) expect(read(() => readModel(bytes.subarray(0, end)))).toBe(false);
    for (let end = 64; end < bytes.length; end += 997) expect(read(() => readModel(bytes.subarray(0, end)))).toBe(false);
    expect(read(() => readModel(new Uint8Array([...bytes, 0])))).toBe(false);
    expect(read(() => readModel(bytes))).toBe(true);
  });

  it("with lengths that lie, ten thousand times", async () => {
    const random = new Random("damage");
    const below = (n: number): number => random.below(n);
    for (let i = 0; i < 5000; i++) {
      const other = bytes.slice(0, 28 + below(3) * 400);
      for (let k = 0; k <= below(4); k++) other[below(28)] = below(256);
      expect(read(() => readModel(other))).toBe(false);
    }
    const model = readModel(bytes);
    for (let i = 0; i < 5000; i++) {
      const other = tokenizer.slice(0, below(4) === 0 ? below(tokenizer.length) : undefined);
      for (let k = 0; k <= below(3); k++) other[below(other.length || 1)] = below(256);
      try {
        (await openModel(model, { tokenizer: other, hotset, backend: "js", context: 2 })).dispose();
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
  });

  it("of unknown kinds", () => {
    expect(() => readModel(new Uint8Array())).toThrow(/an empty file/);
    expect(() => readModel(new TextEncoder().encode("this is a text, not a model at all"))).toThrow(HotsetError);
  });
});
