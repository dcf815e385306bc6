import { decodeAnchor } from "../attention/decode-anchor/spec.js";
import { append } from "../kv-cache/append/spec.js";
import type { Tensor } from "../tensor.js";
import type { ModelConfig } from "./config.js";
import { type AttentionContext, attentionAxes } from "./layer-attention.js";
import { Written } from "./written.js";

/** What the last tokens of a prompt attend to, layer by layer. */
export interface WindowMasses {
  /** The tokens of a run begin: `place` is that of the first of them, from the window's first. */
  enter(place: number, tokens: number): void;
  /** Keeps a layer's queries of those tokens that are in the window. */
  keep(layer: number): void;
  /** Of each layer, [kvHeads, length - window]: what `kvCache.snapKvMasses` gives, for the prompt that the cache holds. */
  all(): Promise<Float64Array[]>;
  dispose(): void;
}

/** The sizes of the two ops: rows that are put in their place, and the window's queries as a batch. */
export const windowAxes = (config: ModelConfig, pages: number, pageSize: number, window: number, most: number) => ({
  // Queries are kept as keys would be, in pages of one token; the values beside them are one component of nothing.
  keep: { tokens: most, kvHeads: config.heads, headDim: config.headDim, valueDim: 1, pages: window, pageSize: 1 },
  weigh: { ...attentionAxes(config, pages, pageSize), batch: window, granularity: 1 },
});

/**
 * `attention/decode-anchor` with the window's queries as a batch over one sequence, each as long as what its token sees,
 * and granules of one token: the masses of a granule are those of a token. `kv-cache/append` collects the queries.
 */
export async function windowMasses(layers: AttentionContext, window: number): Promise<WindowMasses> {
  const { hotset, backend, cache, config, queries, most } = layers;
  const { heads, kvHeads, headDim } = config;
  const { pages, pageSize } = cache;
  const room = pages * pageSize;
  const axes = windowAxes(config, pages, pageSize, window, most);
  const keeping = await hotset.plan(append, axes.keep, { keyPages: "f32" }, { backend });
  const weighing = await hotset.plan(decodeAnchor, axes.weigh, { keyPages: "f32" }, { backend });
  const held: { dispose(): void }[] = [];
  const own = <T extends { dispose(): void }>(value: T): T => {
    held.push(value);
    return value;
  };
  const f32 = (...shape: number[]): Tensor<"f32"> => own(hotset.alloc("f32", shape, backend));
  const i32 = (...shape: number[]) => own(new Written(hotset, backend, "i32", shape));
  const dispose = () => {
    for (const one of held.splice(0)) one.dispose();
  };
  try {
    const [slots, pageTable, lengths] = [i32(most), i32(window, pages), i32(window)];
    const [values, valuePages] = [f32(most, heads, 1), f32(window, heads, 1, 1)];
    const outputs = { out: f32(window, heads, headDim), lse: f32(window, heads), masses: f32(window, kvHeads, room) };
    const steps = cache.keys.map((keyPages, layer) => {
      const kept = f32(window, heads, 1, headDim);
      const pagesOf = { keyPages, valuePages: cache.values[layer] as Tensor<"f32"> };
      const inputs = { ...pagesOf, queries: kept.view([window, heads, headDim]), pageTable: pageTable.tensor, lengths: lengths.tensor };
      return {
        keep: own(keeping.bind({ keys: queries, values, slots: slots.tensor, keyPages: kept, valuePages })),
        weigh: own(weighing.bind(inputs, outputs)),
      };
    });
    let any = false;
    return {
      enter(place, tokens) {
        any = place + tokens > 0;
        if (!any) return;
        for (let t = 0; t < most; t++) slots.data[t] = t < tokens && place + t < window ? Math.max(-1, place + t) : -1;
        slots.send();
      },
      keep(layer) {
        if (any) steps[layer]?.keep.run();
      },
      async all() {
        const { length } = cache;
        for (let i = 0; i < window; i++) {
          pageTable.data.set(cache.hostTable, i * pages);
          lengths.data[i] = length - window + i + 1;
        }
        pageTable.send();
        lengths.send();
        const before = length - window;
        const masses = new Float32Array(window * kvHeads * room);
        const means: Float64Array[] = [];
        for (const { weigh } of steps) {
          weigh.run();
          await outputs.masses.download(masses);
          const mean = new Float64Array(kvHeads * before);
          for (let i = 0; i < window; i++)
            for (let head = 0; head < kvHeads; head++)
              for (let t = 0; t < before; t++) {
                const at = head * before + t;
                mean[at] = (mean[at] as number) + (masses[(i * kvHeads + head) * room + t] as number) / window;
              }
          means.push(mean);
        }
        return means;
      },
      dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}
