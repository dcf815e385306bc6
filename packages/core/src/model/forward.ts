/** The layers of a Llama-architecture model as bound steps over one sequence's cache. */
import { rope } from "../attention/rope/spec.js";
import { isDevice } from "../backend.js";
import type { DType } from "../dtype.js";
import { HotsetError, UnsupportedError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import { SequenceCache } from "./cache.js";
import type { LayerWeights, LoadedModel, ModelConfig, Weight } from "./config.js";
import { embedding } from "./embedding/spec.js";
import { type Eviction, type EvictionCounters, type EvictionSettings, makeEviction, tokensHeld } from "./eviction.js";
import { type AttentionContext, denseAttention, type LayerAttention } from "./layer-attention.js";
import { linear } from "./linear/spec.js";
import { rmsNorm } from "./rms-norm/spec.js";
import { swiglu } from "./swiglu/spec.js";

export interface ForwardSettings {
  readonly hotset: Hotset;
  readonly backend: string;
  /** Tokens of a text, and of the cache where nothing is evicted. */
  readonly context: number;
  /** Prompt tokens that go through the layers together. */
  readonly chunk: number;
  readonly attention?: ((context: AttentionContext) => Promise<LayerAttention>) | undefined;
  readonly eviction?: EvictionSettings | undefined;
}

/** The steps of one layer, in three parts: before attention, after it, and the feed-forward part. */
interface LayerSteps {
  readonly before: readonly Step[];
  readonly after: readonly Step[];
  readonly feedForward: readonly Step[];
}

/** Loads a model's weights into a backend and binds its steps. Throws UnsupportedError on a device. */
export async function makeForward({ config, weights }: LoadedModel, settings: ForwardSettings): Promise<Forward> {
  const { hotset, backend, chunk, context } = settings;
  const found = hotset.backends.find(({ id }) => id === backend);
  if (!found || isDevice(found))
    throw new UnsupportedError({
      where: "openModel",
      expected: "a backend on the CPU: models add and cache on the host",
      received: backend,
      hint: "Use native, wasm or js.",
    });
  const held: { dispose(): void }[] = [];
  const keep = <T extends { dispose(): void }>(value: T): T => {
    held.push(value);
    return value;
  };
  const room = <D extends DType>(dtype: D, ...shape: number[]): Tensor<D> => keep(hotset.alloc(dtype, shape, backend));
  // A backend that reads arrays where they lie needs no copy of the weights.
  const placed = new Map<object, unknown>();
  const place = ({ data, dtype }: Weight) => {
    if (found.inPlace) return { data, dtype } as never;
    const known = placed.get(data);
    if (known) return known as never;
    const { byteLength, BYTES_PER_ELEMENT } = data;
    const blocks = dtype === "q8_0" ? (byteLength / 34) * 32 : byteLength / BYTES_PER_ELEMENT;
    const tensor = room(dtype, blocks).upload(data as never);
    const value = { data: tensor.data, dtype };
    placed.set(data, value);
    return value as never;
  };
  const vector = (data: Float32Array) => place({ data, dtype: "f32" });

  const { dim, heads, kvHeads, headDim, hiddenDim, vocab, rotaryPairs } = config;
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const [x, normed, delta] = [room("f32", chunk, dim), room("f32", chunk, dim), room("f32", chunk, dim)];
  const [query, key, value] = [room("f32", chunk, width), room("f32", chunk, kvWidth), room("f32", chunk, kvWidth)];
  const [queries, keys, attended] = [
    room("f32", chunk, heads, headDim),
    room("f32", chunk, kvHeads, headDim),
    room("f32", chunk, heads, headDim),
  ];
  const [gate, up, hidden] = [room("f32", chunk, hiddenDim), room("f32", chunk, hiddenDim), room("f32", chunk, hiddenDim)];
  const [ids, positions] = [room("i32", chunk), room("i32", chunk)];
  const [last, lastNormed, logits] = [room("f32", 1, dim), room("f32", 1, dim), room("f32", 1, vocab)];
  const frequencies = config.ropeFrequencies && vector(config.ropeFrequencies);

  const where = { backend };
  const project = async (from: Tensor<"f32">, weight: Weight, to: Tensor<"f32">, bias?: Float32Array, tokens = chunk): Promise<Step> => {
    const [inDim, outDim] = [from.data.length / tokens, to.data.length / tokens];
    const plan = await hotset.plan(linear, { tokens, inDim, outDim }, { weight: weight.dtype, bias: bias !== undefined }, where);
    const inputs = { x: from.data, weight: place(weight), ...(bias ? { bias: vector(bias) } : {}) };
    return keep(plan.bind(inputs, { out: to.data }) as Step);
  };
  const norm = async (from: Tensor<"f32">, weight: Float32Array, to: Tensor<"f32">, tokens = chunk): Promise<Step> => {
    const plan = await hotset.plan(rmsNorm, { tokens, dim }, {}, where);
    return keep(plan.bind({ x: from, weight: vector(weight) }, { out: to }, { epsilon: config.normEpsilon }) as Step);
  };
  const turn = async (from: Tensor<"f32">, to: Tensor<"f32">, count: number): Promise<Step> => {
    const axes = { tokens: chunk, heads: count, headDim, rotaryPairs };
    const plan = await hotset.plan(rope, axes, { pairs: config.ropePairs, frequencies: frequencies !== undefined }, where);
    const inputs = { x: from.data, positions, ...(frequencies ? { frequencies } : {}) };
    return keep(plan.bind(inputs, { out: to.data }, { theta: config.ropeTheta }) as Step);
  };
  const layer = async (w: LayerWeights): Promise<LayerSteps> => ({
    before: [
      await norm(x, w.attentionNorm, normed),
      await project(normed, w.query, query, w.queryBias),
      await project(normed, w.key, key, w.keyBias),
      await project(normed, w.value, value, w.valueBias),
      await turn(query, queries, heads),
      await turn(key, keys, kvHeads),
    ],
    after: [await project(attended, w.attentionOut, delta)],
    feedForward: [
      await norm(x, w.feedForwardNorm, normed),
      await project(normed, w.gate, gate),
      await project(normed, w.up, up),
      keep((await hotset.plan(swiglu, { tokens: chunk, dim: hiddenDim }, {}, where)).bind({ gate, up }, { out: hidden }) as Step),
      await project(hidden, w.down, delta),
    ],
  });
  try {
    const table = await hotset.plan(embedding, { tokens: chunk, vocab, dim }, { table: weights.embedding.dtype }, where);
    const lookUp = keep(table.bind({ ids, table: place(weights.embedding) }, { out: x }) as Step);
    const layers: LayerSteps[] = [];
    for (const w of weights.layers) layers.push(await layer(w));
    const finish = [await norm(last, weights.norm, lastNormed, 1), await project(lastNormed, weights.output, logits, undefined, 1)];
    const cache = keep(new SequenceCache(hotset, backend, config, tokensHeld(settings.eviction, context, chunk)));
    const attending: AttentionContext = { hotset, backend, config, cache, queries, out: attended, most: chunk };
    const attention = keep(await (settings.attention ?? denseAttention)(attending));
    const eviction = settings.eviction && keep(await makeEviction(attending, settings.eviction, context));
    return new Forward({
      config,
      cache,
      attention,
      eviction,
      lookUp,
      layers,
      finish,
      x,
      delta,
      keys,
      value,
      ids,
      positions,
      last,
      logits,
      chunk,
      held,
    });
  } catch (error) {
    for (const one of held) one.dispose();
    throw error;
  }
}

interface Parts {
  readonly config: ModelConfig;
  readonly cache: SequenceCache;
  readonly attention: LayerAttention;
  readonly eviction: Eviction | undefined;
  readonly lookUp: Step;
  readonly layers: readonly LayerSteps[];
  readonly finish: readonly Step[];
  readonly x: Tensor<"f32">;
  readonly delta: Tensor<"f32">;
  readonly keys: Tensor<"f32">;
  readonly value: Tensor<"f32">;
  readonly ids: Tensor<"i32">;
  readonly positions: Tensor<"i32">;
  readonly last: Tensor<"f32">;
  readonly logits: Tensor<"f32">;
  readonly chunk: number;
  readonly held: readonly { dispose(): void }[];
}

export class Forward {
  readonly #parts: Parts;
  readonly #steps: readonly Step[];
  #tokens: number;
  #position = 0;
  #promptTokens = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#steps = [parts.lookUp, ...parts.layers.flatMap(({ before, after, feedForward }) => [...before, ...after, ...feedForward])];
    this.#tokens = parts.chunk;
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
  /** [1, vocab]: what followed from the last token. */
  get logits(): Tensor<"f32"> {
    return this.#parts.logits;
  }

  /** Forgets the sequence, and begins one whose first tokens, so many, are its prompt. */
  begin(promptTokens: number): void {
    this.#position = 0;
    this.#promptTokens = promptTokens;
    this.#parts.cache.clear();
    this.#parts.attention.begin?.();
    this.#parts.eviction?.begin(promptTokens);
  }

  /** Tokens of one run, at most. */
  get chunk(): number {
    return this.#parts.chunk;
  }

  /** Takes up to `chunk` tokens through the layers; the logits are those after the last of them. */
  run(tokens: readonly number[], wantLogits = true): void {
    const { layers, attention, eviction, cache, ids, positions, x, delta, keys, value, config, last, finish, lookUp, chunk } = this.#parts;
    const n = tokens.length;
    eviction?.makeRoom();
    const room = cache.pages * cache.pageSize - cache.length;
    if (n < 1 || n > Math.min(chunk, room))
      throw new HotsetError("argument", {
        where: "model",
        expected: `1 to ${Math.min(chunk, room)} tokens: a part of ${chunk} at most, and ${room} are left of the context`,
        received: `${n}`,
      });
    if (this.#tokens !== n) for (const step of this.#steps) step.set("tokens" as never, n);
    this.#tokens = n;
    ids.data.set(tokens);
    for (let t = 0; t < n; t++) positions.data[t] = this.#position + t;
    const ofPrompt = this.#position < this.#promptTokens;
    lookUp.run();
    cache.grow(n);
    for (const [i, { before, after, feedForward }] of layers.entries()) {
      for (const step of before) step.run();
      cache.write(i, n, keys.data, value.data);
      attention.attend(i, n, ofPrompt);
      eviction?.attended(i, this.#position, n);
      for (const step of after) step.run();
      add(x.data, delta.data, n * config.dim);
      for (const step of feedForward) step.run();
      add(x.data, delta.data, n * config.dim);
    }
    this.#position += n;
    eviction?.ran(this.#position);
    if (!wantLogits) return;
    last.data.set(x.data.subarray((n - 1) * config.dim, n * config.dim));
    for (const step of finish) step.run();
  }

  dispose(): void {
    for (const one of this.#parts.held) one.dispose();
  }
}

function add(to: Float32Array, what: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) to[i] = (to[i] as number) + (what[i] as number);
}
