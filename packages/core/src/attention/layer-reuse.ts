/** Decoding with attention that looks at everything in some layers and at what these found in the others. */
import type { DType } from "../dtype.js";
import { describe, HotsetError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import { arrayOf } from "../tensor.js";
import { decode } from "./decode/spec.js";
import { decodeAnchor } from "./decode-anchor/spec.js";
import { planAnchors } from "./layer-reuse-anchors.js";
import { checkPolicy } from "./layer-reuse-check.js";
import { ReuseCounts } from "./layer-reuse-counts.js";
import { AnchorLists } from "./layer-reuse-lists.js";
import type { LayerPolicy, LayerRule } from "./layer-reuse-policy.js";
import { granulesOf, hostArray } from "./layer-reuse-sizes.js";
import { BoundLayer, type LayerStep, type ReuseCounters } from "./layer-reuse-step.js";
import { type LayerParts, type Shared, workOf } from "./layer-reuse-work.js";

export type CacheAxes = AxesOf<typeof decode>;
export type LayerInputs = InputsOf<typeof decode>;
export type LayerOutputs = OutputsOf<typeof decode>;

export interface LayerReuseSettings {
  readonly policy: LayerPolicy;
  /** Sizes of a layer's cache, the same for all layers: those of `attention/decode`. */
  readonly axes: CacheAxes;
  readonly keyPages: "f32" | "f16" | "bf16" | "i8";
  /** Whether layers have learned sinks. Default false. */
  readonly sinks?: boolean;
  /** A backend's id. Default: the one that is fastest for the dense step. */
  readonly backend?: string | undefined;
  /**
   * Whether a layer's tensors will all lie in a device's memory: then `run` queues it, and nothing comes back. Lists stay
   * there too, so that `massKept` is not known, and the batch shares what a sequence has to itself on the host: all are
   * dense while one is shorter than `minContext`, and a `ratio` is of the longest. Default false.
   */
  readonly resident?: boolean;
  /** Tokens that a sequence grows by in a step, at most: lists that serve several steps have room for them. Default 1. */
  readonly tokensPerStep?: number;
}

/**
 * Runs the attention of a model's layers by a policy: `full` layers see everything; an `anchor` sees everything and lists
 * the granules that weighed most (attention/decode-anchor, attention/select), and with `attends: "list"` its output is that
 * over its list; a `reuse` layer attends to the list of its anchor (attention/decode-sparse).
 *
 *   const reuse = await LayerReuse.create(hotset, { policy: parsePolicy(text), axes, keyPages: "f32" });
 *   const steps = caches.map((cache, layer) => reuse.bind(layer, { queries, ...cache, pageTable, lengths }, { out, lse }));
 *   for (...tokens) for (const [layer, step] of steps.entries()) { ...project and append...; step.run(); ... }
 *
 * Layers are run in their order; a run of a layer that is not behind the last one begins a new step. `lengths` must be
 * on the host (of resident layers, there too), and hold the lengths of the step, the newest token included, whenever a
 * layer runs.
 *
 * Each sequence of a batch has lists of its own, by its own length: one that is shorter than the policy's `minContext` sees
 * everything, while the others attend to lists. Only the steps in which lists are made are the same for all: lists of all
 * are made when one sequence needs one. An empty place has length 0; when another sequence takes a place, `reset(place)`.
 * Tokens that are decoded together (speculative decoding) are rows of the batch: `speculativeRows`.
 *
 * Invariant: a reuse layer attends to a list that its anchor made, or brought up to date, in the same step.
 * Source: HyLRA (arXiv 2602.00777), Kascade (MIT), UCM (MIT); their policies in one file.
 */
export class LayerReuse {
  readonly policy: LayerPolicy;
  readonly axes: CacheAxes;
  readonly #dense: Plan<typeof decode>;
  readonly #shared: Shared;
  #last = Number.POSITIVE_INFINITY;

  private constructor(axes: CacheAxes, dense: Plan<typeof decode>, shared: Shared) {
    this.policy = shared.policy;
    this.axes = axes;
    this.#dense = dense;
    this.#shared = shared;
  }

  /**
   * Plans what the policy needs. Throws FormatError where the policy contradicts itself, ShapeError where it is for other
   * heads or a larger cache, and what `plan` throws.
   */
  static async create(hotset: Pick<Hotset, "plan">, given: LayerReuseSettings): Promise<LayerReuse> {
    const { axes, keyPages, sinks = false, resident = false } = given;
    const policy = checkPolicy(given.policy, axes);
    const { tokensPerStep = 1 } = given;
    if (!Number.isInteger(tokensPerStep) || tokensPerStep < 1)
      throw new HotsetError("argument", {
        where: "LayerReuse.create",
        expected: "tokensPerStep: a whole number of at least 1",
        received: describe(tokensPerStep),
      });
    const settings = { ...given, policy };
    const variant = { keyPages: keyPages as DType, sinks } as VariantOf<typeof decode>;
    const dense = await hotset.plan(decode, axes, variant, { backend: settings.backend });
    const { backend } = dense;
    if (resident && !dense.onDevice)
      throw new HotsetError("argument", {
        where: "LayerReuse.create",
        expected: "resident layers on a device",
        received: backend,
        hint: "Layers on the CPU have their lists where they run.",
      });
    const any = policy.layers.some(({ kind }) => kind === "anchor");
    const { granularity } = policy;
    const weighed = any ? await hotset.plan(decodeAnchor, { ...axes, granularity }, variant, { backend }) : undefined;
    const { anchors, reorder } = await planAnchors(hotset, settings, variant, backend);
    const { batch, kvHeads } = axes;
    const masses =
      weighed && !resident ? hostArray(weighed, "masses", batch * kvHeads * granulesOf(axes, granularity), Float32Array) : undefined;
    const counts = new ReuseCounts(kvHeads);
    return new LayerReuse(axes, dense, { policy, resident, anchors, counts, weighed, masses, reorder });
  }

  /** The backend that all layers run on. */
  get backend(): string {
    return this.#dense.backend;
  }

  get counters(): ReuseCounters {
    return this.#shared.counts.counters;
  }

  /** Forgets all lists, or those of one place in the batch: the sequences are others now. Counters go on. */
  reset(place?: number): void {
    if (place !== undefined) this.#within("place", place, this.axes.batch);
    for (const anchor of this.#shared.anchors)
      if (place === undefined) anchor?.lists.drop();
      else anchor?.lists.forget(place);
    this.#last = Number.POSITIVE_INFINITY;
  }

  /**
   * The granules that a layer's KV head attends to of the sequence at a place of the batch (an anchor: that it has listed),
   * ascending, as of the last step: what to fetch for the next one, say. Undefined where it attends to everything. Throws
   * HotsetError for resident layers, whose lists the host does not see.
   */
  listed(layer: number, place: number, kvHead = 0): Int32Array | undefined {
    const rule = this.policy.layers[this.#within("layer", layer, this.policy.layers.length)] as LayerRule;
    const { batch, kvHeads } = this.axes;
    this.#within("place", place, batch);
    this.#within("kvHead", kvHead, kvHeads);
    const anchor = this.#shared.anchors[rule.kind === "reuse" ? rule.source : layer];
    if (!anchor) return undefined;
    const { lists } = anchor;
    if (!(lists instanceof AnchorLists))
      throw new HotsetError("argument", { where: "LayerReuse.listed", expected: "lists on the host", received: "resident layers" });
    if (lists.age === Number.POSITIVE_INFINITY) return undefined;
    const head = rule.kind === "reuse" ? (rule.headMap?.[kvHead] ?? kvHead) : kvHead;
    return lists.listed(place, this.policy.perHead ? head : 0);
  }

  /**
   * Fixes a layer's arrays and scalars, as `plan.bind` of attention/decode does. `hostLengths`: of a resident layer, what
   * `lengths` holds, on the host. Throws HotsetError.
   */
  bind(
    layer: number,
    inputs: LayerInputs,
    outputs: LayerOutputs = {},
    scalars: Readonly<Record<string, number>> = {},
    hostLengths?: Int32Array,
  ): LayerStep {
    const rule = this.policy.layers[this.#within("layer", layer, this.policy.layers.length)] as LayerRule;
    const lengths = hostLengths ?? (arrayOf(inputs.lengths) as Int32Array);
    if (!ArrayBuffer.isView(lengths))
      throw new HotsetError("argument", {
        where: "LayerReuse.bind",
        expected: "lengths on the host: the policy depends on them",
        received: "a buffer on a device",
      });
    const { batch, queryHeads, valueDim } = this.axes;
    const out = outputs.out ?? hostArray(this.#dense, "out", batch * queryHeads * valueDim, Float32Array);
    const lse = outputs.lse ?? hostArray(this.#dense, "lse", batch * queryHeads, Float32Array);
    const made: { dispose(): void }[] = [];
    const keep = <T extends { dispose(): void }>(step: T): T => {
      made.push(step);
      return step;
    };
    const parts: LayerParts = { inputs, outputs: { out, lse }, scalars, lengths, window: scalars.window ?? 0, keep, made };
    try {
      const dense = keep(this.#dense.bind(inputs, { out, lse }, scalars));
      const work = workOf(this.#shared, layer, rule, dense, parts);
      return new BoundLayer(
        () => {
          // A layer that is not behind the last one begins a step.
          if (layer <= this.#last) this.#shared.counts.step();
          this.#last = layer;
          return work();
        },
        dense.outputs,
        made,
      );
    } catch (error) {
      for (const step of made) step.dispose();
      throw error;
    }
  }

  /** Gives back what lies on a device. Layers that were bound are disposed of by themselves. */
  dispose(): void {
    for (const anchor of this.#shared.anchors) anchor?.device?.dispose();
  }

  #within(what: string, value: number, count: number): number {
    if (Number.isInteger(value) && value >= 0 && value < count) return value;
    throw new HotsetError("argument", {
      where: "LayerReuse",
      expected: `a ${what} from 0 to ${count - 1}`,
      received: describe(value),
    });
  }
}
