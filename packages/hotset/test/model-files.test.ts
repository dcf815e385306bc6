/** GGUF and safetensors files: what npm packages write and read of them, the same text as the llama2.c file, and damage. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHotset, FormatError, js, type LoadedModel, openModel, readModel, type Tokenizer } from "@hotset/core";
import { Random } from "@hotset/core/testing/cases";
import { native } from "@hotset/kernels-native";
import { type GGUFTypedMetadata, GGUFValueType, gguf } from "@huggingface/gguf";
import { safetensors } from "@jax-js/loaders";
import { parseRawMetadata } from "gguf";
import { afterAll, describe, expect, it } from "vitest";
import { PlainModel } from "./support/plain-model.js";
import { tensorsOf, writeGguf, writeSafetensors } from "./support/stored-model.js";
import { tinyModel, tinyPieces, tinySizes, tinyTokenizer } from "./support/tiny-model.js";

const folder = mkdtempSync(join(tmpdir(), "hotset-model-"));
const hotset = await createHotset({ backends: [() => native(), js()] });
afterAll(() => {
  hotset.dispose();
  rmSync(folder, { recursive: true, force: true });
});

// Whole blocks of 32, for q8_0.
const bytes = tinyModel("a stored model", { dim: 64, hidden: 96, heads: 8 });
const weights = tensorsOf(bytes);
const { STRING, ARRAY, FLOAT32, INT32, UINT32, BOOL } = GGUFValueType;
const texts = (value: string[]) => ({ value, type: ARRAY, subType: STRING });

const pieces = tinyPieces();
const sentencePiece = {
  "tokenizer.ggml.model": { value: "llama", type: STRING },
  "tokenizer.ggml.tokens": texts(pieces.map(({ text }) => text.replaceAll(" ", "\u2581"))),
  "tokenizer.ggml.scores": { value: pieces.map(({ score }) => score), type: ARRAY, subType: FLOAT32 },
  "tokenizer.ggml.token_type": {
    value: pieces.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1)),
    type: ARRAY,
    subType: INT32,
  },
  "tokenizer.ggml.bos_token_id": { value: 1, type: UINT32 },
  "tokenizer.ggml.eos_token_id": { value: 2, type: UINT32 },
} as unknown as GGUFTypedMetadata;

/** GPT-2's alphabet, a few merges, and one control token. */
const letters = Array.from({ length: 256 }, (_, byte) => {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  return String.fromCharCode(printable(byte) ? byte : 256 + Array.from({ length: byte }, (__, b) => b).filter((b) => !printable(b)).length);
});
const merges = ["a b", "ab c", "Ġ a", "Ġa b", "c d", "1 2", "Ã ©"];
const bytePairTokens = [...letters, ...merges.map((merge) => merge.replace(" ", "")), "<|end|>"];
const bytePairs = (pre: string) =>
  ({
    "tokenizer.ggml.model": { value: "gpt2", type: STRING },
    "tokenizer.ggml.pre": { value: pre, type: STRING },
    "tokenizer.ggml.tokens": texts(bytePairTokens),
    "tokenizer.ggml.merges": texts(merges),
    "tokenizer.ggml.token_type": { value: bytePairTokens.map((_, id) => (id === 263 ? 3 : 1)), type: ARRAY, subType: INT32 },
    "tokenizer.ggml.eos_token_id": { value: 263, type: UINT32 },
    "tokenizer.ggml.add_bos_token": { value: false, type: BOOL },
  }) as unknown as GGUFTypedMetadata;

async function idsOf(loaded: LoadedModel, prompt: string, backend = "native", tokenizer?: Tokenizer): Promise<number[]> {
  const model = await openModel(loaded, { hotset, backend, tokenizer });
  const ids: number[] = [];
  for await (const { id } of model.tokens(prompt, { maxTokens: 30 })) ids.push(id);
  model.dispose();
  return ids;
}

describe("a GGUF file", () => {
  const files = {
    f32: writeGguf(weights, "f32", sentencePiece),
    f16: writeGguf(weights, "f16", sentencePiece),
    q8_0: writeGguf(weights, "q8_0", sentencePiece),
  };

  it("is read by other packages as it was written", async () => {
    const path = join(folder, "tiny.gguf");
    writeFileSync(path, files.q8_0);
    const { metadata, tensorInfos } = await gguf(path, { allowLocalFile: true });
    expect(metadata["llama.block_count" as never]).toBe(tinySizes.layers);
    expect(tensorInfos.length).toBe(weights.tensors.size);
    const blob = readModel(files.q8_0);
    expect(blob.config).toMatchObject({ dim: 64, hiddenDim: 96, layers: 3, heads: 8, kvHeads: 2, ropePairs: "interleaved" });
    // This one reads in pieces of 10 MiB, whole ones only.
    truncateSync(path, 10 << 20);
    const other = await parseRawMetadata(path);
    expect(other.error ?? undefined).toBeUndefined();
    expect(JSON.stringify(other, (_, value) => (typeof value === "bigint" ? Number(value) : value))).toMatch(/block_count":3/);
  });

  it("in f32 gives the tokens of the llama2.c file, with its own vocabulary", async () => {
    const loaded = readModel(files.f32);
    expect(loaded.config.format).toBe("GGUF llama");
    const fromBin = await openModel(bytes, { hotset, tokenizer: tinyTokenizer(), backend: "native" });
    const prompt = "ab cde fg";
    expect(loaded.tokenizer?.encode(prompt)).toEqual(fromBin.tokenizer.encode(prompt));
    const wanted = new PlainModel(bytes).greedy(fromBin.tokenizer.encode(prompt), 30);
    const ids = await idsOf(loaded, prompt);
    expect(ids).toEqual(wanted.slice(0, ids.length));
    fromBin.dispose();
  });

  it.each(["f16", "q8_0"] as const)("in %s gives the tokens of a plain forward over the same rounded weights", async (storedAs) => {
    const loaded = readModel(files[storedAs]);
    expect(loaded.weights.output.dtype).toBe(storedAs);
    const prompt = loaded.tokenizer?.encode("abc ab") ?? [];
    const wanted = new PlainModel(bytes, storedAs).greedy(prompt, 30);
    for (const backend of ["native", "js"]) {
      const ids = await idsOf(loaded, "abc ab", backend);
      expect(ids).toEqual(wanted.slice(0, ids.length));
    }
  });

  it("reads characters that no token is as bytes, and writes them whole", () => {
    const { tokenizer } = readModel(files.f32);
    const ids = tokenizer?.encode("é z") ?? [];
    expect(ids.slice(-5)).toEqual(expect.arrayContaining([3 + 0xc3, 3 + 0xa9, 3 + 0x7a]));
    const decoder = tokenizer?.decoder();
    expect(ids.map((id) => decoder?.push(id)).join("")).toBe("é z");
  });

  it.each([
    ["gpt-2", "ab abc 123 cd", ["ab", "Ġ", "abc", "Ġ", "12", "3", "Ġ", "cd"]],
    ["llama-bpe", "abc 1234\n\ncd", ["abc", "Ġ", "12", "3", "4", "Ċ", "Ċ", "cd"]],
    ["qwen2", "ab 12'S é", ["ab", "Ġ", "1", "2", "'", "S", "Ġ", "Ã©"]],
  ])("with a %s vocabulary cuts words and merges by rank", (pre, text, wanted) => {
    const { tokenizer } = readModel(writeGguf(weights, "f32", bytePairs(pre)));
    const ids = tokenizer?.encode(text) ?? [];
    expect(ids.map((id) => bytePairTokens[id])).toEqual(wanted);
    const decoder = tokenizer?.decoder();
    expect(ids.map((id) => decoder?.push(id)).join("") + decoder?.end()).toBe(text);
    expect(tokenizer?.ends.has(263)).toBe(true);
  });
});

describe("a safetensors file", () => {
  const config = JSON.stringify({
    model_type: "llama",
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 3,
    num_attention_heads: weights.sizes.heads,
    num_key_value_heads: weights.sizes.kvHeads,
    vocab_size: weights.sizes.vocab,
    max_position_embeddings: weights.sizes.context,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  });
  const file = writeSafetensors(weights);

  it("gives the tokens of the llama2.c file, in one piece or in shards", async () => {
    const { tokenizer } = readModel(writeGguf(weights, "f32", sentencePiece));
    const prompt = tokenizer?.encode("abc") ?? [];
    const wanted = new PlainModel(bytes).greedy(prompt, 30);
    const one = await idsOf(readModel(file, config), "abc", "native", tokenizer);
    expect(one).toEqual(wanted.slice(0, one.length));
    const shards = writeSafetensors.shards(weights, 3);
    expect(await idsOf(readModel(shards, config), "abc", "js", tokenizer)).toEqual(one);
  });

  it("is what another package reads", () => {
    const { tensors } = safetensors.parse(Uint8Array.from(file));
    const read = readModel(file, config);
    expect(Object.keys(tensors).length).toBe(weights.tensors.size);
    expect(Array.from(tensors["model.norm.weight"]?.data as Float32Array)).toEqual(Array.from(read.weights.norm));
    const { shape, data } = tensors["model.layers.1.mlp.down_proj.weight"] as safetensors.Tensor;
    expect(shape).toEqual([64, 96]);
    expect(Array.from(data as Float32Array)).toEqual(Array.from(read.weights.layers[1]?.down.data as Float32Array));
  });

  it("needs its config, and whole weights", () => {
    expect(() => readModel(file)).toThrow(/config\.json/);
    expect(() => readModel(writeSafetensors.shards(weights, 3)[0] as Uint8Array, config)).toThrow(FormatError);
    expect(() => readModel(file, config.replace('"hidden_size":64', '"hidden_size":32'))).toThrow(FormatError);
    expect(() => readModel(file, "{")).toThrow(FormatError);
  });
});

describe("damaged files", () => {
  const random = new Random("damage");
  const below = (n: number): number => random.below(n);
  const damaged = (whole: Uint8Array, head: number, read: (bytes: Uint8Array) => unknown, times: number): void => {
    for (let i = 0; i < times; i++) {
      const broken = whole.slice(0, below(3) ? undefined : below(whole.length));
      for (let k = 0; k <= below(4); k++) broken[below(Math.min(head, broken.length || 1))] = below(2) ? below(256) : 255;
      try {
        read(broken);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
      }
    }
  };
  const cut = (whole: Uint8Array, head: number, read: (bytes: Uint8Array) => unknown): void => {
    for (let end = 0; end < head; end++) expect(() => read(whole.subarray(0, end)), `cut at ${end}`).toThrow(FormatError);
    expect(() => read(whole.subarray(0, whole.length - 64))).toThrow(FormatError);
  };

  it("GGUF: cut at every byte of the header, and fuzzed ten thousand times", () => {
    const whole = writeGguf(weights, "f16", sentencePiece);
    const head = 8192;
    cut(whole, head, readModel);
    damaged(whole, head + 3000, readModel, 10_000);
  }, 240_000);

  it("safetensors: cut at every byte of the header, and fuzzed ten thousand times", () => {
    const whole = writeSafetensors(weights);
    const config = '{"model_type":"llama","hidden_size":64}';
    const head = 8 + Number(new DataView(whole.buffer).getBigUint64(0, true));
    cut(whole, head, (part) => readModel(part, config));
    damaged(whole, head, (part) => readModel(part, config), 10_000);
  }, 240_000);
});
