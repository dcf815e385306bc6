/** A model's layers and its cache, bound to a backend: tokens in, logits out, and no arithmetic on the host. */
import { type Backend, isDevice } from "../backend.js";
import { HotsetError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import { SequenceCache } from "./cache.js";
import type { LoadedModel, ModelWeights, Weight } from "./config.js";
import { type Eviction, type EvictionCounters, type EvictionSettings, makeEviction, tokensHeld } from "./eviction.js";
import { Holdings, roomError } from "./holdings.js";
import { type AttentionContext, denseAttention, type LayerAttention } from "./layer-attention.js";
import { activations, bindFinish, bindLayers, type LayerSet } from "./layers.js";
import { Written } from "./written.js";

export interface ForwardSettings {
  readonly hotset: Hotset;
  readonly backend: Backend;
  /** Tokens of a text, and of the cache where nothing is evicted. */
  readonly context: number;
  /** Prompt tokens that go through the layers together: 2 at least. */
  readonly chunk: number;
  readonly attention?: ((context: AttentionContext) => Promise<LayerAttention>) | undefined;
  readonly eviction?: EvictionSettings | undefined;
  /** Where logits come to lie: a backend on the CPU. */
  readonly sampler: string;
}

/** Loads a model's weights into a backend and binds its steps. Throws HotsetError, with everything given back. */
export async function makeForward(model: LoadedModel, settings: ForwardSettings): Promise<Forward> {
  const { hotset, backend, chunk, context } = settings;
  const { config, weights } = model;
  const held = new Holdings(hotset, backend);
  const { id } = backend;
  try {
    const of = activations(config, held, chunk);
    const { keys, value: values, queries, attended: out } = of;
    const room = tokensHeld(settings.eviction, context, chunk);
    const cache = held.keep(await SequenceCache.create(hotset, id, config, room, { keys, values, most: chunk }));
    const attending: AttentionContext = { hotset, backend: id, config, cache, queries, out, most: chunk };
    // Before the weights, which take longest: what a backend cannot run is refused here.
    const attention = held.keep(await (settings.attention ?? denseAttention)(attending));
    const eviction = settings.eviction && held.keep(await makeEviction(attending, settings.eviction, context));
    const i32 = (...shape: number[]) => held.keep(new Written(hotset, id, "i32", shape));
    const parts = { config, weights, held, of };
    const bind = async (tokens: number): Promise<TokenSet> => {
      const [ids, positions] = [i32(tokens), i32(tokens)];
      return { ids, positions, set: tokens, ...(await bindLayers(parts, tokens, ids.tensor, positions.tensor)) };
    };
    const [one, many] = [await bind(1), await bind(chunk)];
    const row = i32(1);
    const finish = await bindFinish(parts, row.tensor);
    const logits = isDevice(backend) ? held.keep(hotset.alloc("f32", [1, config.vocab], settings.sampler)) : of.logits;
    await held.settled([...cache.keys, ...cache.values], cache.steps);
    return new Forward({ backend, vocab: config.vocab, cache, attention, eviction, one, many, row, finish, made: of.logits, logits, held });
  } catch (error) {
    held.dispose();
    throw roomError(error, backend, bytesOf(weights), context);
  }
}

/** Of all weights, each array once. */
function bytesOf({ embedding, output, norm, layers }: ModelWeights): number {
  const arrays = new Set<ArrayBufferView>([embedding.data, output.data, norm]);
  for (const weight of layers.flatMap((layer) => Object.values(layer) as (Weight | Float32Array | undefined)[]))
    if (weight) arrays.add("data" in weight ? weight.data : weight);
  return [...arrays].reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** The layers for so many tokens at a time, with what the host writes for them. */
interface TokenSet extends LayerSet {
  readonly ids: Written<"i32">;
  readonly positions: Written<"i32">;
  /** Tokens that its steps are set to. */
  set: number;
}

interface Parts {
  readonly backend: Backend;
  readonly vocab: number;
  readonly cache: SequenceCache;
  readonly attention: LayerAttention;
  readonly eviction: Eviction | undefined;
  readonly one: TokenSet;
  readonly many: TokenSet;
  /** The row of the last token, for `finish.many`. */
  readonly row: Written<"i32">;
  readonly finish: { readonly one: readonly Step[]; readonly many: readonly Step[] };
  /** Where the logits are made, and where the host sees them: the same, but for a device. */
  readonly made: Tensor<"f32">;
  readonly logits: Tensor<"f32">;
  readonly held: Holdings;
}

export class Forward {
  readonly #parts: Parts;
  #position = 0;
  #promptTokens = 0;
  /** On a device: the end of the run before, which nobody has waited for. */
  #before: Promise<unknown> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** The position of the next token. */
  get position(): number {
    return this.#position;
  }
  get cache(): SequenceCache {
    return this.#parts.cache;
  }
  /** What a cache that forgets has done; undefined where it does not. */
  get evicted(): EvictionCounters | undefined {
    return this.#parts.eviction?.counters;
  }
  /** [1, vocab], on the host: what followed from the last token. */
  get logits(): Tensor<"f32"> {
    return this.#parts.logits;
  }

  /** Forgets the sequence, and begins one whose first tokens, so many, are its prompt. */
  begin(promptTokens: number): void {
    this.#position = 0;
    this.#promptTokens = promptTokens;
    this.#before = undefined;
    this.#parts.cache.clear();
    this.#parts.attention.begin?.();
    this.#parts.eviction?.begin(promptTokens);
  }

  /** Tokens of one run, at most. */
  get chunk(): number {
    return this.#parts.many.tokens;
  }

  /**
   * Takes up to `chunk` tokens through the layers; the logits are those after the last of them. On a device it waits once,
   * for the logits, and nothing else comes back; without them it waits for the run before, so that no more than two are queued.
   */
  async run(tokens: readonly number[], wantLogits = true): Promise<void> {
    const { backend, eviction, one, many } = this.#parts;
    const batch = isDevice(backend) ? backend.batch?.() : undefined;
    try {
      eviction?.makeRoom();
      this.#check(tokens);
      await this.#queue(tokens, wantLogits);
    } finally {
      batch?.end();
    }
    if (isDevice(backend)) await this.#wait(tokens.length === 1 ? one : many, wantLogits);
  }

  async #queue(tokens: readonly number[], wantLogits: boolean): Promise<void> {
    const { attention, eviction, cache, one, many, row, finish } = this.#parts;
    const n = tokens.length;
    const now = n === 1 ? one : many;
    setTokens(now, n);
    now.ids.data.set(tokens);
    for (let t = 0; t < n; t++) now.positions.data[t] = this.#position + t;
    now.ids.send();
    now.positions.send();
    const ofPrompt = this.#position < this.#promptTokens;
    cache.grow(n);
    eviction?.enter(this.#position, n);
    now.lookUp.run();
    for (const [i, { before, after }] of now.layers.entries()) {
      for (const step of before) step.run();
      cache.write(i);
      const attending = attention.attend(i, n, ofPrompt);
      if (attending) await attending;
      eviction?.attended(i);
      for (const step of after) step.run();
    }
    this.#position += n;
    const evicting = eviction?.ran(this.#position);
    if (evicting) await evicting;
    if (!wantLogits) return;
    row.data[0] = n - 1;
    if (n > 1) row.send();
    for (const step of n === 1 ? finish.one : finish.many) step.run();
  }

  dispose(): void {
    this.#parts.held.dispose();
  }

  async #wait({ lookUp }: TokenSet, wantLogits: boolean): Promise<void> {
    const { made, logits } = this.#parts;
    if (wantLogits) {
      this.#before = undefined;
      await made.download(logits.data);
      return;
    }
    const before = this.#before;
    const ended = lookUp.done();
    // Whoever waits for it learns of what went wrong; nobody may.
    ended.catch(() => {});
    this.#before = ended;
    await before;
  }

  #check(tokens: readonly number[]): void {
    const { cache, vocab } = this.#parts;
    const room = cache.pages * cache.pageSize - cache.length;
    const most = Math.min(this.chunk, room);
    if (tokens.length < 1 || tokens.length > most)
      throw new HotsetError("argument", {
        where: "model",
        expected: `1 to ${most} tokens: a part of ${this.chunk} at most, and ${room} are left of the context`,
        received: `${tokens.length}`,
      });
    const wrong = tokens.find((token) => !Number.isInteger(token) || token < 0 || token >= vocab);
    if (wrong !== undefined)
      throw new HotsetError("index", { where: "model", expected: `tokens below the vocabulary's ${vocab}`, received: `${wrong}` });
  }
}

function setTokens(set: TokenSet, tokens: number): void {
  if (set.set === tokens) return;
  for (const step of [set.lookUp, ...set.layers.flatMap(({ before, after }) => [...before, ...after])]) step.set("tokens" as never, tokens);
  set.set = tokens;
}
