import type { DType, HostArray } from "../dtype.js";
import { HotsetError } from "../errors.js";

/** The sizes of a Llama-architecture model. */
export interface ModelConfig {
  /** Where it came from, for messages: `llama2.c`, `GGUF llama`. */
  readonly format: string;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Components of the feed-forward layers. */
  readonly hiddenDim: number;
  readonly vocab: number;
  /** Tokens that it was made for. */
  readonly context: number;
  readonly normEpsilon: number;
  readonly ropeTheta: number;
  readonly ropePairs: "interleaved" | "half";
  /** Pairs of components of a head that are turned. */
  readonly rotaryPairs: number;
  /** Radians a position of each pair, where they do not follow from theta. */
  readonly ropeFrequencies?: Float32Array;
}

/** A stored matrix [rows, columns], or a vector. */
export interface Weight {
  readonly dtype: Extract<DType, "f32" | "f16" | "bf16" | "q8_0">;
  readonly data: HostArray;
}

export interface LayerWeights {
  readonly attentionNorm: Float32Array;
  readonly query: Weight;
  readonly key: Weight;
  readonly value: Weight;
  readonly queryBias?: Float32Array;
  readonly keyBias?: Float32Array;
  readonly valueBias?: Float32Array;
  readonly attentionOut: Weight;
  readonly feedForwardNorm: Float32Array;
  readonly gate: Weight;
  readonly up: Weight;
  readonly down: Weight;
}

export interface ModelWeights {
  readonly embedding: Weight;
  readonly layers: readonly LayerWeights[];
  readonly norm: Float32Array;
  /** The embedding once more, where the model shares it. */
  readonly output: Weight;
}

export interface LoadedModel {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  /** The tokenizer that the file itself holds. */
  readonly tokenizer?: Tokenizer;
}

/** Text to tokens and back. */
export interface Tokenizer {
  /** How many tokens it knows. */
  readonly size: number;
  /** Tokens at which generation ends. */
  readonly ends: ReadonlySet<number>;
  /** The tokens of a text, with the one that begins a text where the model wants it. */
  encode(text: string): number[];
  /** A decoder of one text: give it token after token. */
  decoder(): TokenDecoder;
}

export interface TokenDecoder {
  /** The text that a token adds; empty while a character is incomplete. */
  push(token: number): string;
  /** What is left of an incomplete character. */
  end(): string;
}

/** Most bytes of any one size that a file may claim: beyond these, arithmetic with them is not exact. */
export const mostElements = 2 ** 40;

/** The error for a prompt that leaves no room in the context. */
export const contextError = (tokens: number, context: number): HotsetError =>
  new HotsetError("argument", {
    where: "model.generate",
    expected: `a prompt of at most ${context - 1} tokens (the context is ${context})`,
    received: `${tokens} tokens`,
    hint: "Shorten the prompt.",
  });
