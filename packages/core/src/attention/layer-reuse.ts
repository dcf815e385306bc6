/** Decoding with attention that looks at everything in some layers and at what these found in the others. */
import type { DType } from "../dtype.js";
import { describe, HotsetError, ShapeError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import { arrayOf } from "../tensor.js";
import { decode } from "./decode/spec.js";
import { decodeAnchor } from "./decode-anchor/spec.js";
import { decodeSparse } from "./decode-sparse/spec.js";
import { AnchorLists } from "./layer-reuse-lists.js";
import type { AnchorRule, LayerPolicy } from "./layer-reuse-policy.js";
import { BoundLayer, type LayerStep, type ReuseCounters, type Runnable, type Work } from "./layer-reuse-step.js";
import { select } from "./select/spec.js";

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
}

interface Anchor {
  readonly rule: AnchorRule;
  readonly lists: AnchorLists;
  readonly plan: Plan<typeof decodeSparse>;
  readonly select: Plan<typeof select>;
}

/**
 * Runs the attention of a model's layers by a policy: `full` layers see everything; an `anchor` sees everything and lists
 * the granules that weighed most (attention/decode-anchor, attention/select); a `reuse` layer attends to the list of its
 * anchor (attention/decode-sparse). While the longest context is shorter than the policy's `minContext`, all are dense.
 *
 *   const reuse = await LayerReuse.create(hotset, { policy: parsePolicy(text), axes, keyPages: "f32" });
 *   const steps = caches.map((cache, layer) => reuse.bind(layer, { queries, ...cache, pageTable, lengths }, { out, lse }));
 *   for (...tokens) for (const [layer, step] of steps.entries()) { ...project and append...; step.run(); ... }
 *
 * Layers are run in their order; a run of a layer that is not behind the last one begins a new step. `lengths` must be
 * on the host, and hold the lengths of the step, the newest token included, whenever a layer runs.
 *
 * Invariant: a reuse layer attends to a list that its anchor made, or brought up to date, in the same step.
 * Source: HyLRA (arXiv 2602.00777), Kascade (MIT), UCM (MIT); the policies of 2.6 of these in one file.
 */
export class LayerReuse {
  readonly policy: LayerPolicy;
  readonly axes: CacheAxes;
  readonly #dense: Plan<typeof decode>;
  readonly #weighed: Plan<typeof decodeAnchor> | undefined;
  readonly #anchors: readonly (Anchor | undefined)[];
  readonly #masses: Float32Array | undefined;
  readonly #counts = { steps: 0, denseRuns: 0, anchorRuns: 0, sparseRuns: 0, tokensAttended: 0, tokensVisible: 0, mass: 0, active: false };
  #last = Number.POSITIVE_INFINITY;

  private constructor(
    { policy, axes }: LayerReuseSettings,
    dense: Plan<typeof decode>,
    weighed: Plan<typeof decodeAnchor> | undefined,
    anchors: readonly (Anchor | undefined)[],
  ) {
    this.policy = policy;
    this.axes = axes;
    this.#dense = dense;
    this.#weighed = weighed;
    this.#anchors = anchors;
    this.#masses = weighed && hostArray(weighed, "masses", axes.batch * axes.kvHeads * granulesOf(axes, policy.granularity), Float32Array);
  }

  /** Plans what the policy needs. Throws ShapeError where its head maps do not fit the heads, and what `plan` throws. */
  static async create(hotset: Pick<Hotset, "plan">, settings: LayerReuseSettings): Promise<LayerReuse> {
    const { policy, axes, keyPages, sinks = false } = settings;
    const { granularity } = policy;
    for (const [layer, rule] of policy.layers.entries())
      if (
        rule.kind === "reuse" &&
        rule.headMap &&
        (rule.headMap.length !== axes.kvHeads || rule.headMap.some((head) => head >= axes.kvHeads))
      )
        throw new ShapeError({
          where: `LayerReuse: headMap of layer ${layer}`,
          expected: `${axes.kvHeads} KV heads below ${axes.kvHeads}`,
          received: `[${rule.headMap.join(", ")}]`,
        });
    const variant = { keyPages: keyPages as DType, sinks } as VariantOf<typeof decode>;
    const dense = await hotset.plan(decode, axes, variant, { backend: settings.backend });
    const { backend } = dense;
    const lists = policy.perHead ? axes.kvHeads : 1;
    const granules = granulesOf(axes, granularity);
    const anchors: (Anchor | undefined)[] = [];
    for (const rule of policy.layers) {
      if (rule.kind !== "anchor") {
        anchors.push(undefined);
        continue;
      }
      const grown = rule.refreshEvery > 1 ? Math.ceil((rule.refreshEvery - 1) / granularity) + 1 : 0;
      const k = Math.min(granules, entriesOf(rule, granularity, axes.maxPages * axes.pageSize) + grown);
      const { batch, kvHeads: heads } = axes;
      const selectPlan = await hotset.plan(select, { batch, heads, granules, granularity, lists, k }, {}, { backend });
      const plan = await hotset.plan(decodeSparse, { ...axes, granularity, lists, k }, variant, { backend });
      const selected = hostArray(selectPlan, "selected", batch * lists * k, Int32Array);
      const counts = hostArray(selectPlan, "counts", batch * lists, Uint32Array);
      const made = new AnchorLists({ batch, lists, kvHeads: heads, k, granularity }, selected, counts);
      anchors.push({ rule, lists: made, plan, select: selectPlan });
    }
    const weighed = anchors.some(Boolean) ? await hotset.plan(decodeAnchor, { ...axes, granularity }, variant, { backend }) : undefined;
    return new LayerReuse(settings, dense, weighed, anchors);
  }

  /** The backend that all layers run on. */
  get backend(): string {
    return this.#dense.backend;
  }

  get counters(): ReuseCounters {
    const { mass, active, ...counts } = this.#counts;
    return { ...counts, massKept: counts.anchorRuns ? mass / counts.anchorRuns : Number.NaN, sparseActive: active };
  }

  /** Forgets all lists: the sequences are others now. Counters go on. */
  reset(): void {
    for (const anchor of this.#anchors) anchor?.lists.drop();
    this.#last = Number.POSITIVE_INFINITY;
  }

  /** Fixes a layer's arrays and scalars, as `plan.bind` of attention/decode does. Throws HotsetError. */
  bind(layer: number, inputs: LayerInputs, outputs: LayerOutputs = {}, scalars: Readonly<Record<string, number>> = {}): LayerStep {
    const rule = this.policy.layers[layer];
    if (!rule)
      throw new HotsetError("argument", {
        where: "LayerReuse.bind",
        expected: `a layer from 0 to ${this.policy.layers.length - 1}`,
        received: describe(layer),
      });
    const lengths = arrayOf(inputs.lengths) as Int32Array;
    if (!ArrayBuffer.isView(lengths))
      throw new HotsetError("argument", {
        where: "LayerReuse.bind",
        expected: "lengths on the host: the policy depends on them",
        received: "a buffer on a device",
      });
    const { batch, queryHeads, valueDim } = this.axes;
    const out = outputs.out ?? hostArray(this.#dense, "out", batch * queryHeads * valueDim, Float32Array);
    const lse = outputs.lse ?? hostArray(this.#dense, "lse", batch * queryHeads, Float32Array);
    const dense = this.#dense.bind(inputs, { out, lse }, scalars);
    const window = (scalars.window ?? 0) as number;
    const made: { dispose(): void }[] = [dense];
    const keep = <T extends { dispose(): void }>(step: T): T => {
      made.push(step);
      return step;
    };
    const overLists = (anchor: Anchor, selected: Int32Array): Runnable =>
      keep(anchor.plan.bind({ ...inputs, selected } as InputsOf<typeof decodeSparse>, { out, lse }, scalars));

    let begin: () => Work;
    if (rule.kind === "full") begin = () => this.#denseWork(dense, lengths, window);
    else if (rule.kind === "anchor") {
      const anchor = this.#anchors[layer] as Anchor;
      const masses = this.#masses as Float32Array;
      const { lists } = anchor;
      const weighed = keep((this.#weighed as Plan<typeof decodeAnchor>).bind(inputs, { out, lse, masses }, scalars));
      const { sink, recent } = this.policy;
      const forced = { sink, recent: Math.max(1, recent) };
      const selecting = keep(anchor.select.bind({ scores: masses, lengths }, { selected: lists.selected, counts: lists.counts }, forced));
      const again = rule.refreshEvery > 1 ? overLists(anchor, lists.selected) : undefined;
      begin = () => {
        if (this.#isShort(lengths)) {
          lists.drop();
          return this.#denseWork(dense, lengths, window);
        }
        if (again && lists.age + 1 < rule.refreshEvery && lists.grow(lengths, this.#counts.steps))
          return this.#sparseWork(again, lists, lengths, window);
        lists.drop();
        selecting.set("budget", entriesOf(rule, this.policy.granularity, longest(lengths)));
        return { runs: [weighed, selecting], done: () => this.#listed(lists, masses, lengths, window) };
      };
    } else {
      const anchor = this.#anchors[rule.source] as Anchor;
      const { lists } = anchor;
      const { headMap } = rule;
      const selected = headMap ? hostArray(anchor.select, "selected", lists.selected.length, Int32Array) : lists.selected;
      const sparse = overLists(anchor, selected);
      begin = () => {
        if (this.#isShort(lengths)) return this.#denseWork(dense, lengths, window);
        if (!lists.isFor(this.#counts.steps))
          throw new HotsetError("argument", {
            where: `LayerReuse: layer ${layer}`,
            expected: `layer ${rule.source}, its anchor, to have run before it in this step`,
            received: "layers in another order",
          });
        if (headMap) lists.mapped(headMap, selected);
        return this.#sparseWork(sparse, lists, lengths, window, headMap);
      };
    }
    return new BoundLayer(
      () => {
        this.#enter(layer);
        return begin();
      },
      dense.outputs,
      made,
    );
  }

  /** A layer that is not behind the last one begins a step. */
  #enter(layer: number): void {
    if (layer <= this.#last) {
      this.#counts.steps++;
      this.#counts.active = false;
    }
    this.#last = layer;
  }

  #isShort = (lengths: Int32Array): boolean => longest(lengths) < this.policy.minContext;

  #denseWork(step: Runnable, lengths: Int32Array, window: number): Work {
    return {
      runs: [step],
      done: () => {
        this.#counts.denseRuns++;
        this.#counts.tokensAttended += this.#see(lengths, window);
      },
    };
  }

  #sparseWork(step: Runnable, lists: AnchorLists, lengths: Int32Array, window: number, headMap?: readonly number[]): Work {
    return {
      runs: [step],
      done: () => {
        this.#counts.sparseRuns++;
        this.#counts.active = true;
        this.#counts.tokensAttended += lists.tokens(window, headMap);
        this.#see(lengths, window);
      },
    };
  }

  #listed(lists: AnchorLists, masses: Float32Array, lengths: Int32Array, window: number): void {
    lists.take(lengths, this.#counts.steps);
    this.#counts.anchorRuns++;
    this.#counts.mass += lists.massKept(masses);
    this.#counts.tokensAttended += this.#see(lengths, window);
  }

  /** Counts what dense attention meets in one layer, and returns it. */
  #see(lengths: Int32Array, window: number): number {
    let tokens = 0;
    for (const length of lengths) tokens += this.axes.kvHeads * (window ? Math.min(window, length) : length);
    this.#counts.tokensVisible += tokens;
    return tokens;
  }
}

const longest = (lengths: Int32Array): number => lengths.reduce((most, length) => Math.max(most, length), 0);

const granulesOf = ({ maxPages, pageSize }: CacheAxes, granularity: number): number => Math.ceil((maxPages * pageSize) / granularity);

/** Entries that an anchor lists of a context of so many tokens. */
function entriesOf({ k = 0, ratio = 0 }: AnchorRule, granularity: number, tokens: number): number {
  return Math.max(1, Math.ceil(Math.max(k, Math.ceil(ratio * tokens)) / granularity));
}

/** An array for a port: in the backend's memory where the host sees it, so that no run copies it. */
function hostArray<A extends Float32Array | Int32Array | Uint32Array>(
  plan: { readonly onDevice: boolean; alloc(port: never): { readonly data: unknown } },
  port: string,
  length: number,
  kind: new (length: number) => A,
): A {
  return plan.onDevice ? new kind(length) : (plan.alloc(port as never).data as A);
}
