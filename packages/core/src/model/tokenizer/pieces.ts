/** SentencePiece's byte-pair merges by score, as llama2.c and GGUF files of the `llama` kind use them. */
import { FormatError } from "../../errors.js";
import type { TokenDecoder, Tokenizer } from "../config.js";
import { mergeSymbols } from "./merge.js";

export interface Pieces {
  /** UTF-8 of each token, with spaces as they are. */
  readonly pieces: readonly Uint8Array[];
  /** The pair of pieces whose joint token has the highest score is merged first. */
  readonly scores: ArrayLike<number>;
  /** The token a text begins with, if any. */
  readonly begin?: number | undefined;
  readonly ends: readonly number[];
  /** What stands for a character that no token is. */
  readonly unknown: number;
  /** [256]: the token of each byte, for characters that no token is. */
  readonly bytes?: readonly number[] | undefined;
  /** Whether a text gets a space in front, which decoding takes away again. */
  readonly spacePrefix: boolean;
  /** Tokens that are no text. */
  readonly control?: ReadonlySet<number>;
  readonly where: string;
}

export class PieceTokenizer implements Tokenizer {
  readonly size: number;
  readonly ends: ReadonlySet<number>;
  readonly #pieces: Pieces;
  readonly #ids = new Map<string, number>();
  /** Byte by token. */
  readonly #bytes: ReadonlyMap<number, number>;

  constructor(pieces: Pieces) {
    this.size = pieces.pieces.length;
    this.ends = new Set(pieces.ends);
    this.#pieces = pieces;
    const { begin, ends, unknown, bytes = [], where } = pieces;
    this.#bytes = new Map(bytes.map((token, byte) => [token, byte]));
    const named = [...ends, unknown, ...bytes, ...(begin === undefined ? [] : [begin])];
    for (const id of named)
      if (!(id >= 0 && id < this.size))
        throw new FormatError({ where, expected: `token ${id}, which it needs`, received: `${this.size} tokens` });
    // The first of equal pieces counts. Control tokens are not found in a text.
    for (let id = this.size - 1; id >= 0; id--) {
      if (pieces.control?.has(id) || this.#bytes.has(id)) continue;
      const key = latin(pieces.pieces[id] as Uint8Array);
      if (key !== "") this.#ids.set(key, id);
    }
  }

  encode(text: string): number[] {
    const { begin, spacePrefix } = this.#pieces;
    const tokens = begin === undefined ? [] : [begin];
    if (text === "") return tokens;
    const bytes = new TextEncoder().encode(spacePrefix ? ` ${text}` : text);
    return tokens.concat(this.#merge(bytes));
  }

  decoder(): TokenDecoder {
    const decoder = new TextDecoder();
    const { begin, control, pieces, spacePrefix } = this.#pieces;
    let started = false;
    return {
      push: (token) => {
        if (token === begin) {
          started = false;
          return "";
        }
        if (control?.has(token)) return "";
        const byte = this.#bytes.get(token);
        let piece = byte === undefined ? (pieces[token] ?? new Uint8Array()) : Uint8Array.of(byte);
        if (!started && spacePrefix && piece[0] === 0x20) piece = piece.subarray(1);
        started = true;
        return decoder.decode(piece, { stream: true });
      },
      end: () => decoder.decode(),
    };
  }

  #merge(text: Uint8Array): number[] {
    const { scores, bytes, unknown } = this.#pieces;
    const starts: number[] = [];
    for (let i = 0; i < text.length; i++) if (((text[i] as number) & 0xc0) !== 0x80) starts.push(i);
    const key = latin(text);
    const score = (left: number, _: number, end: number): number | undefined => {
      const id = this.#ids.get(key.slice(left, end));
      return id === undefined ? undefined : scores[id];
    };
    const tokens: number[] = [];
    mergeSymbols(starts, text.length, score, (start, end) => {
      const id = this.#ids.get(key.slice(start, end));
      if (id !== undefined) tokens.push(id);
      else if (!bytes) tokens.push(unknown);
      else for (let i = start; i < end; i++) tokens.push(bytes[text[i] as number] as number);
    });
    return tokens;
  }
}

/** Bytes as a string with a character each: a key for maps. */
export function latin(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return text;
}
