/** A model of Llama's architecture made by seed, and a tokenizer for it, as llama2.c's files: for tests without data. */
import { Random } from "@hotset/core/testing/cases";

export const tinySizes = { dim: 48, hidden: 64, layers: 3, heads: 6, kvHeads: 2, vocab: 300, context: 128 } as const;

export function tinyModel(seed: string, other: { dim?: number; hidden?: number; heads?: number } = {}): Uint8Array {
  const { dim, hidden, layers, heads, kvHeads, vocab, context } = { ...tinySizes, ...other };
  const kv = (dim / heads) * kvHeads;
  const random = new Random(seed);
  const normal = (count: number, spread: number) => random.values(count, () => spread * random.normal());
  const near1 = (count: number) => random.values(count, () => 1 + 0.1 * random.normal());
  const wide = 1.5 / Math.sqrt(dim);
  const parts = [
    normal(vocab * dim, 1),
    near1(layers * dim),
    normal(layers * dim * dim, wide),
    normal(layers * kv * dim, wide),
    normal(layers * kv * dim, wide),
    normal(layers * dim * dim, wide),
    near1(layers * dim),
    normal(layers * hidden * dim, wide),
    normal(layers * dim * hidden, wide),
    normal(layers * hidden * dim, wide),
    near1(dim),
    normal((context * dim) / heads, 1),
  ];
  const bytes = new Uint8Array(28 + 4 * parts.reduce((sum, { length }) => sum + length, 0));
  new Int32Array(bytes.buffer, 0, 7).set([dim, hidden, layers, heads, kvHeads, vocab, context]);
  let at = 28;
  for (const part of parts) {
    new Float32Array(bytes.buffer, at, part.length).set(part);
    at += part.byteLength;
  }
  return bytes;
}

/** Three special tokens, 256 bytes, then letters and pairs of them. */
export function tinyPieces(): { text: string; score: number }[] {
  const pieces = [
    { text: "<unk>", score: 0 },
    { text: "<s>", score: 0 },
    { text: "</s>", score: 0 },
  ];
  for (let byte = 0; byte < 256; byte++) pieces.push({ text: `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, score: 0 });
  const letters = [..." abcdefghijklmn"];
  for (const [i, letter] of letters.entries()) pieces.push({ text: letter, score: -100 - i });
  for (let i = 0; pieces.length < tinySizes.vocab; i++)
    pieces.push({ text: `${letters[i % letters.length]}${letters[(i * 2 + 1) % letters.length]}`, score: -1 - i });
  return pieces;
}

export function tinyTokenizer(): Uint8Array {
  const pieces = tinyPieces();
  const texts = pieces.map(({ text }) => new TextEncoder().encode(text));
  const bytes = new Uint8Array(4 + texts.reduce((sum, { length }) => sum + 8 + length, 0));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 8, true);
  let at = 4;
  for (const [i, text] of texts.entries()) {
    view.setFloat32(at, (pieces[i] as (typeof pieces)[number]).score, true);
    view.setUint32(at + 4, text.length, true);
    bytes.set(text, at + 8);
    at += 8 + text.length;
  }
  return bytes;
}
