/** Opening a model file, and decoding with it. */
import { isDevice } from "../backend.js";
import { defaultHotset } from "../default.js";
import { describe, type ErrorCode, FormatError, HotsetError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import { sample } from "../logits/sample/spec.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import { namedBackend, opsOf, suitedBackends } from "./choose.js";
import { contextError, type LoadedModel, type ModelConfig, type Tokenizer } from "./config.js";
import { checkEviction, type EvictionSettings } from "./eviction.js";
import { readLlama2cTokenizer } from "./formats/llama2c.js";
import { type Forward, type ForwardSettings, makeForward } from "./forward.js";
import type { AttentionContext, LayerAttention } from "./layer-attention.js";
import { readModel } from "./read.js";

export interface OpenModelSettings {
  /**
   * A backend's id: run there or throw. `auto` or nothing: of those that can run every op of the model the one with the
   * shortest predicted time of a token, and the next where it fails before anything has run (`model.why`).
   */
  readonly backend?: string | undefined;
  /** Default: the process-wide one. */
  readonly hotset?: Hotset | undefined;
  /** llama2.c's tokenizer.bin, or a tokenizer of another library; needed where the file holds none. */
  readonly tokenizer?: Uint8Array | Tokenizer | undefined;
  /** Tokens of a text, and of the cache; default and most: what the model was made for. */
  readonly context?: number | undefined;
  /** How layers attend; default: to everything before (`denseAttention`); `reuseAttention` attends by a policy. */
  readonly attention?: ((context: AttentionContext) => Promise<LayerAttention>) | undefined;
  /**
   * Tokens that leave the cache, in dense attention; default: none. Positions stay those of the text, and a text still ends
   * with the context. `model.forward.evicted` counts.
   */
  readonly eviction?: EvictionSettings | undefined;
}

export interface GenerateSettings {
  /** Tokens to generate, at most; default 256. Generation also ends with the context, or at a token that ends a text. */
  readonly maxTokens?: number | undefined;
  /** 0, the default, is greedy. As for the `logits/sample` op, like the next three. */
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
  /** Default 0. The same prompt, settings and seed give the same text. */
  readonly seed?: number | undefined;
  /** Ends generation: the loop throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A token that was generated, and the text it adds: empty while a character is incomplete. */
export interface GeneratedToken {
  readonly id: number;
  readonly text: string;
}

/**
 * Opens a model of Llama's architecture.
 *
 * `source`: the bytes of a llama2.c .bin (with `tokenizer`) or a GGUF file, or what `readModel` gave; in a page also a
 * File or Blob. Throws FormatError where a file is damaged, and HotsetError otherwise.
 */
export async function openModel(source: Uint8Array | Blob | LoadedModel, settings: OpenModelSettings = {}): Promise<Model> {
  const loaded = await load(source);
  const { config } = loaded;
  const hotset = settings.hotset ?? (await defaultHotset());
  const context = settings.context ?? config.context;
  if (!Number.isInteger(context) || context < 2 || context > config.context)
    throw new HotsetError("argument", {
      where: "openModel",
      expected: `context to be a whole number from 2 to the model's ${config.context}`,
      received: describe(settings.context),
    });
  const { attention, eviction } = settings;
  if (eviction) checkEviction(eviction);
  if (eviction && attention)
    throw new HotsetError("argument", {
      where: "openModel",
      expected: "attention or eviction",
      received: "both: lists of a policy would name tokens that have left",
    });
  const tokenizer = tokenizerOf(loaded, settings.tokenizer);
  const sizes = { context, chunk: Math.min(64, context), eviction };
  const asked = opsOf(loaded, { ...sizes, ownAttention: attention !== undefined });
  const named = settings.backend !== undefined && settings.backend !== "auto";
  const suited = named ? [namedBackend(hotset, settings.backend as string, asked)] : suitedBackends(hotset, asked, config.vocab);
  let failed = "";
  for (const [i, { backend, why }] of suited.entries()) {
    try {
      return await openOn(loaded, tokenizer, { ...sizes, hotset, backend, attention }, failed + why);
    } catch (error) {
      if (i + 1 === suited.length || !(error instanceof HotsetError) || !fallsBack.has(error.code)) throw error;
      failed += `fell back from ${backend.id} (${error.message}): `;
    }
  }
  throw new Error("unreachable");
}

/** What another backend may not meet. */
const fallsBack: ReadonlySet<ErrorCode> = new Set(["memory", "device", "unsupported"]);

async function openOn(loaded: LoadedModel, tokenizer: Tokenizer, settings: Omit<ForwardSettings, "sampler">, why: string): Promise<Model> {
  const { hotset, backend, context } = settings;
  const { config } = loaded;
  // Drawing wants f64, which devices lack or pay for: the logits of a device come back.
  const plan = hotset.planSync(sample, { rows: 1, vocab: config.vocab }, {}, isDevice(backend) ? {} : { backend: backend.id });
  const forward = await makeForward(loaded, { ...settings, sampler: plan.backend });
  const held: { dispose(): void }[] = [forward];
  const word = () => {
    const tensor = hotset.alloc("u32", [1], plan.backend);
    held.push(tensor);
    return tensor;
  };
  try {
    const [seeds, positions] = [word(), word()];
    const step = plan.bind({ logits: forward.logits, seeds, positions });
    return new Model(config, tokenizer, { id: backend.id, why }, context, forward, { step, seeds, positions });
  } catch (error) {
    for (const one of held) one.dispose();
    throw error;
  }
}

async function load(source: Uint8Array | Blob | LoadedModel): Promise<LoadedModel> {
  if ("config" in source) return source;
  const bytes = source instanceof Uint8Array ? source : new Uint8Array(await source.arrayBuffer());
  return readModel(bytes);
}

function tokenizerOf({ config, tokenizer: own }: LoadedModel, given: Uint8Array | Tokenizer | undefined): Tokenizer {
  const tokenizer = given instanceof Uint8Array ? readLlama2cTokenizer(given, config.vocab) : (given ?? own);
  if (!tokenizer)
    throw new HotsetError("argument", {
      where: "openModel",
      expected: "a tokenizer",
      received: `none: ${config.format} files hold none`,
      hint: "Pass { tokenizer }.",
    });
  if (tokenizer.size > config.vocab)
    throw new FormatError({ where: "openModel", expected: `a tokenizer of at most ${config.vocab} tokens`, received: `${tokenizer.size}` });
  return tokenizer;
}

interface Sampler {
  readonly step: Step<typeof sample>;
  readonly seeds: Tensor<"u32">;
  readonly positions: Tensor<"u32">;
}

/** A model that is ready to decode one text at a time. */
export class Model {
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  /** Where it runs. */
  readonly backend: string;
  /** The reason for it, in one sentence. */
  readonly why: string;
  readonly context: number;
  /** The layers and their cache, for tools. */
  readonly forward: Forward;
  readonly #sampler: Sampler;
  #state: "ready" | "running" | "disposed" = "ready";

  constructor(
    config: ModelConfig,
    tokenizer: Tokenizer,
    backend: { readonly id: string; readonly why: string },
    context: number,
    forward: Forward,
    sampler: Sampler,
  ) {
    this.config = config;
    this.tokenizer = tokenizer;
    this.backend = backend.id;
    this.why = backend.why;
    this.context = context;
    this.forward = forward;
    this.#sampler = sampler;
  }

  /** Continues a text, piece by piece. Throws HotsetError: a prompt beyond the context, or a model that is generating. */
  async *generate(prompt: string, settings: GenerateSettings = {}): AsyncGenerator<string, void, undefined> {
    for await (const { text } of this.tokens(prompt, settings)) if (text !== "") yield text;
  }

  /** The same, token by token. The last has the id of no token where a character was left incomplete: -1. */
  async *tokens(prompt: string, settings: GenerateSettings = {}): AsyncGenerator<GeneratedToken, void, undefined> {
    const { maxTokens = 256, signal } = settings;
    if (!Number.isInteger(maxTokens) || maxTokens < 0)
      throw new HotsetError("argument", {
        where: "model.generate",
        expected: "maxTokens to be a whole number of at least 0",
        received: describe(maxTokens),
      });
    const input = this.tokenizer.encode(prompt);
    if (input.length === 0)
      throw new HotsetError("argument", { where: "model.generate", expected: "a prompt with a token", received: describe(prompt) });
    if (input.length >= this.context) throw contextError(input.length, this.context);
    this.#begin(settings, input.length);
    try {
      signal?.throwIfAborted();
      await this.#read(input, signal);
      const decoder = this.tokenizer.decoder();
      for (const id of input) decoder.push(id);
      for (let made = 0; made < maxTokens; made++) {
        const id = this.#draw();
        if (id < 0 || this.tokenizer.ends.has(id)) break;
        yield { id, text: decoder.push(id) };
        await turn();
        signal?.throwIfAborted();
        if (this.#state !== "running") throw disposedError();
        if (made + 1 === maxTokens || this.forward.position >= this.context) break;
        await this.forward.run([id]);
      }
      const rest = decoder.end();
      if (rest !== "") yield { id: -1, text: rest };
    } finally {
      if (this.#state === "running") this.#state = "ready";
      else this.#release();
    }
  }

  /** Gives back its memory; a text being generated ends with an error. */
  dispose(): void {
    const running = this.#state === "running";
    if (this.#state === "disposed") return;
    this.#state = "disposed";
    if (!running) this.#release();
  }

  #begin({ temperature = 0, topK = 0, topP = 1, minP = 0, seed = 0 }: GenerateSettings, promptTokens: number): void {
    if (this.#state === "disposed") throw disposedError();
    if (this.#state === "running")
      throw new HotsetError("busy", {
        where: "model.generate",
        expected: "a model that is not generating",
        received: "one whose loop has not ended",
        hint: "Open it once more for two texts at a time.",
      });
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32)
      throw new HotsetError("argument", { where: "model.generate", expected: "seed from 0 to 4294967295", received: describe(seed) });
    const { step, seeds } = this.#sampler;
    step.set("temperature", temperature).set("topK", topK).set("topP", topP).set("minP", minP);
    seeds.data[0] = seed;
    this.forward.begin(promptTokens);
    this.#state = "running";
  }

  async #read(input: readonly number[], signal: AbortSignal | undefined): Promise<void> {
    const { chunk } = this.forward;
    for (let at = 0; at < input.length; at += chunk) {
      await this.forward.run(input.slice(at, at + chunk), at + chunk >= input.length);
      await turn();
      signal?.throwIfAborted();
      if (this.#state !== "running") throw disposedError();
    }
  }

  #draw(): number {
    const { step, positions } = this.#sampler;
    positions.data[0] = this.forward.position;
    return step.run().ids[0] as number;
  }

  #release(): void {
    this.forward.dispose();
    this.#sampler.step.dispose();
    this.#sampler.seeds.dispose();
    this.#sampler.positions.dispose();
  }
}

const disposedError = (): HotsetError =>
  new HotsetError("disposed", { where: "model.generate", expected: "a live model", received: "one that was disposed" });

/** Lets timers, signals and rendering have their turn between two tokens. */
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
