/** Small models on a device backend: the text and the logits of js, in every way that a model can run. */
import {
  attention,
  createHotset,
  type Hotset,
  HotsetError,
  type LoadedModel,
  type Model,
  type OpenModelSettings,
  openModel,
  type ReuseAttention,
  readModel,
  reuseAttention,
  toF16,
  toQ8Rows,
} from "@hotset/core";
import type { DeviceBackend } from "@hotset/core/backend";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { logitTolerances } from "./model-tolerance.js";
import { tinyModel, tinyTokenizer } from "./tiny-model.js";
import { type Watched, watched } from "./watched.js";

// Whole blocks of 32, for q8_0.
const loaded = readModel(tinyModel("a model on a device", { dim: 64, hidden: 96, heads: 8 }));
const tokenizer = tinyTokenizer();
const { layers, kvHeads, headDim, dim, hiddenDim } = loaded.config;
const tolerances = logitTolerances(loaded);
/** 3 tokens, and more than a part of 64. */
const [short, long] = ["ab abc", "abcd ".repeat(18)];

type Settings = Partial<OpenModelSettings>;
interface Run {
  readonly ids: number[];
  readonly logits: Float32Array[];
}

const policy = attention.parsePolicy(
  {
    layers: [
      { kind: "anchor", k: 24, refreshEvery: 3 },
      { kind: "reuse", source: 0, headMap: [1, 0] },
      { kind: "anchor", k: 24 },
    ],
    granularity: 4,
    sink: 2,
    recent: 4,
  },
  { layers, kvHeads },
);

/** The weights in other bits. */
function storedAs(dtype: "f16" | "q8_0"): LoadedModel {
  const stored = ({ data }: { data: unknown }, columns: number) => {
    const values = data as Float32Array;
    return { dtype, data: dtype === "f16" ? toF16(values) : toQ8Rows(values, columns) };
  };
  const embedding = stored(loaded.weights.embedding, dim);
  const each = loaded.weights.layers.map((layer) => ({
    ...layer,
    query: stored(layer.query, dim),
    key: stored(layer.key, dim),
    value: stored(layer.value, dim),
    attentionOut: stored(layer.attentionOut, dim),
    gate: stored(layer.gate, dim),
    up: stored(layer.up, dim),
    down: stored(layer.down, hiddenDim),
  }));
  return { ...loaded, weights: { ...loaded.weights, embedding, output: embedding, layers: each } };
}

/** As Qwen's: biases, halves that are turned together, and frequencies of its own. */
function biased(): LoadedModel {
  const wave = (count: number, shift: number) => Float32Array.from({ length: count }, (_, i) => 0.3 * Math.sin(i * 1.7 + shift));
  const each = loaded.weights.layers.map((layer, i) => ({
    ...layer,
    queryBias: wave(dim, i),
    keyBias: wave(kvHeads * headDim, i + 1),
    valueBias: wave(kvHeads * headDim, i + 2),
  }));
  const ropeFrequencies = Float32Array.from({ length: headDim / 2 }, (_, i) => 1 / (i + 1) ** 2);
  return { ...loaded, config: { ...loaded.config, ropePairs: "half", ropeFrequencies }, weights: { ...loaded.weights, layers: each } };
}

/** One matrix in a hundred larger: what the tolerance must tell apart. */
function mutant(): LoadedModel {
  const each = loaded.weights.layers.map((layer, i) =>
    i === 1 ? { ...layer, value: { dtype: "f32" as const, data: (layer.value.data as Float32Array).map((x) => 1.01 * x) } } : layer,
  );
  return { ...loaded, weights: { ...loaded.weights, layers: each } };
}

async function decoded(model: Model, prompt: string, maxTokens: number): Promise<Run> {
  const [ids, logits]: [number[], Float32Array[]] = [[], []];
  for await (const { id } of model.tokens(prompt, { maxTokens })) {
    if (id < 0) continue;
    ids.push(id);
    logits.push(model.forward.logits.data.slice());
  }
  return { ids, logits };
}

/** The largest difference of the logits, in tolerances, up to where js itself is undecided between two tokens. */
function apart(found: Run, wanted: Run): number {
  let most = 0;
  for (const [at, logits] of wanted.logits.entries()) {
    const own = found.logits[at];
    if (!own || found.ids.slice(0, at).some((id, i) => id !== wanted.ids[i])) return Number.POSITIVE_INFINITY;
    for (const [id, value] of logits.entries()) {
      const far = Math.abs(value - (own[id] as number)) / (tolerances[id] as number);
      most = far >= 0 ? Math.max(most, far) : Number.POSITIVE_INFINITY;
    }
    const [first = 0, second = 0] = logits.toSorted((a, b) => b - a);
    if (first - second < 4 * Math.max(...tolerances)) break;
    if (found.ids[at] !== wanted.ids[at]) return Number.POSITIVE_INFINITY;
  }
  return most;
}

export function modelsOn(name: string, load: () => Promise<DeviceBackend>): void {
  describe(`models on ${name}`, () => {
    let watch: Watched;
    let hotset: Hotset;
    beforeAll(async () => {
      watch = watched(await load());
      hotset = await createHotset({ backends: [watch.backend] });
    });
    afterAll(() => hotset.dispose());
    const opened: Model[] = [];
    const open = async (backend: string, settings: Settings = {}, source = loaded): Promise<Model> => {
      const model = await openModel(source, { tokenizer, hotset, backend, ...settings });
      opened.push(model);
      return model;
    };
    // Disposing of the models gives back all that was taken, whatever a test did.
    afterEach(() => {
      for (const model of opened.splice(0)) model.dispose();
      expect([watch.counts.bytes, watch.counts.steps]).toEqual([0, 0]);
    });

    const ways: [string, string, Settings, LoadedModel][] = [
      ["dense attention", short, {}, loaded],
      ["dense attention after a prompt in parts", long, {}, loaded],
      ["weights in f16", short, {}, storedAs("f16")],
      ["weights in q8_0", short, {}, storedAs("q8_0")],
      ["biases and other rotations", short, {}, biased()],
      ["a policy", long, { attention: (context) => reuseAttention(context, policy) }, loaded],
      ["StreamingLLM", short, { eviction: { method: "streaming-llm", budget: 9 } }, loaded],
      ["StreamingLLM after a prompt in parts", long, { eviction: { method: "streaming-llm", budget: 33 } }, loaded],
      ["SnapKV", long, { eviction: { method: "snapkv", budget: 40, window: 9 } }, loaded],
    ];
    it.each(ways)("%s: the text of js, and logits within tolerance", async (_, prompt, settings, source) => {
      const [model, plain] = [await open(watch.backend.id, settings, source), await open("js", settings, source)];
      const [found, wanted] = [await decoded(model, prompt, 12), await decoded(plain, prompt, 12)];
      expect(wanted.ids.length).toBeGreaterThan(3);
      expect(apart(found, wanted)).toBeLessThan(1);
      expect(model.forward.evicted).toEqual(plain.forward.evicted);
    });

    it("the tolerance refuses one matrix that is 1 % larger", async () => {
      const [other, plain] = [await open("js", {}, mutant()), await open("js")];
      const [found, wanted] = [await decoded(other, short, 1), await decoded(plain, short, 1)];
      expect(apart(found, wanted)).toBeGreaterThan(1);
    });

    it("a policy attends to as much as on js", async () => {
      const counted = async (backend: string) => {
        let reuse: ReuseAttention | undefined;
        const model = await open(backend, { attention: async (context) => (reuse = await reuseAttention(context, policy)) });
        const { ids } = await decoded(model, long, 8);
        return { ids, counters: reuse?.counters };
      };
      const wanted = await counted("js");
      expect(await counted(watch.backend.id)).toEqual({ ...wanted, counters: { ...wanted.counters, massKept: Number.NaN } });
      expect(wanted.counters?.sparseRuns).toBeGreaterThan(5);
    });

    it("a text that fails in the middle ends with the reason, and the next one is right", async () => {
      const model = await open(watch.backend.id);
      const wanted = await decoded(model, short, 6);
      const ids: number[] = [];
      const text = async () => {
        for await (const { id } of model.tokens(short, { maxTokens: 6 })) {
          ids.push(id);
          const end = watch.counts.runs + 7;
          if (ids.length === 3)
            watch.fails = () =>
              watch.counts.runs < end
                ? undefined
                : new HotsetError("device", { where: "run", expected: "it to work", received: "a failure" });
        }
      };
      await expect(text()).rejects.toThrow(/but received a failure/);
      expect(ids).toEqual(wanted.ids.slice(0, 3));
      watch.fails = () => undefined;
      expect(await decoded(model, short, 6)).toEqual(wanted);
    });
  });
}
