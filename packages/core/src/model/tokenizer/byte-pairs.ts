/** Byte-level byte-pair encoding, as GPT-2, Llama 3 and Qwen2 use it: merges by rank inside the words of a pattern. */
import { FormatError } from "../../errors.js";
import type { TokenDecoder, Tokenizer } from "../config.js";
import { mergeSymbols } from "./merge.js";

const letters = String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`;
const rest = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const endings = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";

/** How a text is cut into words, by the name that files use. */
export const preTokenizers = {
  "gpt-2": String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  "llama-bpe": String.raw`${endings}|${letters}|\p{N}{1,3}|${rest}`,
  qwen2: String.raw`${endings}|${letters}|\p{N}|${rest}`,
} as const;

export interface BytePairs {
  /** Each token in GPT-2's alphabet, which has a character for each byte. */
  readonly tokens: readonly string[];
  /** Two symbols with a space between, the first merged first. */
  readonly merges: readonly string[];
  readonly pre: keyof typeof preTokenizers;
  readonly begin?: number | undefined;
  readonly ends: readonly number[];
  /** Tokens that are no text. */
  readonly control: ReadonlySet<number>;
  readonly where: string;
}

/** Control tokens are never read from a text: what a prompt quotes stays text. */
export class BytePairTokenizer implements Tokenizer {
  readonly size: number;
  readonly ends: ReadonlySet<number>;
  readonly #pairs: BytePairs;
  readonly #ids = new Map<string, number>();
  readonly #ranks = new Map<string, number>();
  readonly #words: RegExp;

  constructor(pairs: BytePairs) {
    this.size = pairs.tokens.length;
    this.ends = new Set(pairs.ends);
    this.#pairs = pairs;
    this.#words = new RegExp(preTokenizers[pairs.pre], "gu");
    for (let id = this.size - 1; id >= 0; id--) if (!pairs.control.has(id)) this.#ids.set(pairs.tokens[id] as string, id);
    for (const [rank, merge] of pairs.merges.entries()) if (!this.#ranks.has(merge)) this.#ranks.set(merge, rank);
    for (const character of alphabet)
      if (!this.#ids.has(character))
        throw new FormatError({ where: pairs.where, expected: "a token for each byte", received: `none for ${JSON.stringify(character)}` });
  }

  encode(text: string): number[] {
    const tokens = this.#pairs.begin === undefined ? [] : [this.#pairs.begin];
    for (const [word] of text.matchAll(this.#words)) this.#encodeWord(word, tokens);
    return tokens;
  }

  decoder(): TokenDecoder {
    const decoder = new TextDecoder();
    return {
      push: (token) => {
        if (this.#pairs.control.has(token)) return "";
        const bytes = [...(this.#pairs.tokens[token] ?? "")].map((character) => byteOf.get(character) ?? 0x3f);
        return decoder.decode(Uint8Array.from(bytes), { stream: true });
      },
      end: () => decoder.decode(),
    };
  }

  #encodeWord(word: string, tokens: number[]): void {
    const symbols = Array.from(new TextEncoder().encode(word), (byte) => alphabet[byte] as string).join("");
    // Llama 3 takes a word that is a token as it is, whatever its merges.
    const whole = this.#pairs.pre === "llama-bpe" ? this.#ids.get(symbols) : undefined;
    if (whole !== undefined) {
      tokens.push(whole);
      return;
    }
    const score = (left: number, middle: number, end: number): number | undefined => {
      const rank = this.#ranks.get(`${symbols.slice(left, middle)} ${symbols.slice(middle, end)}`);
      return rank === undefined ? undefined : -rank;
    };
    mergeSymbols(
      [...symbols].map((_, i) => i),
      symbols.length,
      score,
      (start, end) => {
        const id = this.#ids.get(symbols.slice(start, end));
        if (id !== undefined) tokens.push(id);
        // A merge without a token of its own: its bytes.
        else for (let i = start; i < end; i++) tokens.push(this.#ids.get(symbols[i] as string) as number);
      },
    );
  }
}

/** GPT-2's alphabet: printable bytes as they are, the others from U+0100 on. */
const alphabet: readonly string[] = (() => {
  let next = 256;
  const printable = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();
const byteOf: ReadonlyMap<string, number> = new Map(alphabet.map((character, byte) => [character, byte]));
