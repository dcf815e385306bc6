/** Decoding with attention that looks at everything in some layers and at what these found in the others. */
import type { DType } from "../dtype.js";
import { describe, HotsetError, ShapeError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import type { embedding } from "../model/embedding/spec.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import { arrayOf, type Tensor } from "../tensor.js";
import { decode } from "./decode/spec.js";
import { decodeAnchor } from "./decode-anchor/spec.js";
import type { decodeSparse } from "./decode-sparse/spec.js";
import { type Anchor, planAnchors } from "./layer-reuse-anchors.js";
import type { DeviceAnchor } from "./layer-reuse-device.js";
import type { AnchorLists, Lists } from "./layer-reuse-lists.js";
import type { AnchorRule, LayerPolicy, LayerRule, ReuseRule } from "./layer-reuse-policy.js";
import { entriesOf, granulesOf, hostArray, longest } from "./layer-reuse-sizes.js";
import { BoundLayer, type LayerStep, type ReuseCounters, type Runnable, type Work } from "./layer-reuse-step.js";

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
   * there too, so that `massKept` is not known. Default false.
   */
  readonly resident?: boolean;
}

/**
 * Runs the attention of a model's layers by a policy: `full` layers see everything; an `anchor` sees everything and lists
 * the granules that weighed most (attention/decode-anchor, attention/select), and with `attends: "list"` its output is that
 * over its list; a `reuse` layer attends to the list of its
 * anchor (attention/decode-sparse). While the longest context is shorter than the policy's `minContext`, all are dense.
 *
 *   const reuse = await LayerReuse.create(hotset, { policy: parsePolicy(text), axes, keyPages: "f32" });
 *   const steps = caches.map((cache, layer) => reuse.bind(layer, { queries, ...cache, pageTable, lengths }, { out, lse }));
 *   for (...tokens) for (const [layer, step] of steps.entries()) { ...project and append...; step.run(); ... }
 *
 * Layers are run in their order; a run of a layer that is not behind the last one begins a new step. `lengths` must be
 * on the host (of resident layers, there too), and hold the lengths of the step, the newest token included, whenever a
 * layer runs.
 *
 * Invariant: a reuse layer attends to a list that its anchor made, or brought up to date, in the same step.
 * Source: HyLRA (arXiv 2602.00777), Kascade (MIT), UCM (MIT); their policies in one file.
 */
export class LayerReuse {
  readonly policy: LayerPolicy;
  readonly axes: CacheAxes;
  readonly #dense: Plan<typeof decode>;
  readonly #weighed: Plan<typeof decodeAnchor> | undefined;
  readonly #anchors: readonly (Anchor | undefined)[];
  /** Of resident layers: reorders masses for a head map. */
  readonly #reorder: Plan<typeof embedding> | undefined;
  readonly #masses: Float32Array | undefined;
  readonly #counts = { steps: 0, denseRuns: 0, anchorRuns: 0, sparseRuns: 0, tokensAttended: 0, tokensVisible: 0, mass: 0, active: false };
  #last = Number.POSITIVE_INFINITY;

  private constructor(
    { policy, axes, resident = false }: LayerReuseSettings,
    dense: Plan<typeof decode>,
    weighed: Plan<typeof decodeAnchor> | undefined,
    anchors: readonly (Anchor | undefined)[],
    reorder: Plan<typeof embedding> | undefined,
  ) {
    this.policy = policy;
    this.axes = axes;
    this.#dense = dense;
    this.#weighed = weighed;
    this.#anchors = anchors;
    this.#reorder = reorder;
    this.#masses =
      resident || !weighed
        ? undefined
        : hostArray(weighed, "masses", axes.batch * axes.kvHeads * granulesOf(axes, policy.granularity), Float32Array);
  }

  /** Plans what the policy needs. Throws ShapeError where its head maps do not fit the heads, and what `plan` throws. */
  static async create(hotset: Pick<Hotset, "plan">, settings: LayerReuseSettings): Promise<LayerReuse> {
    const { policy, axes, keyPages, sinks = false, resident = false } = settings;
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
    if (resident && !dense.onDevice)
      throw new HotsetError("argument", {
        where: "LayerReuse.create",
        expected: "resident layers on a device",
        received: backend,
        hint: "Layers on the CPU have their lists where they run.",
      });
    const any = policy.layers.some(({ kind }) => kind === "anchor");
    const weighed = any ? await hotset.plan(decodeAnchor, { ...axes, granularity }, variant, { backend }) : undefined;
    const { anchors, reorder } = await planAnchors(hotset, settings, variant, backend);
    return new LayerReuse(settings, dense, weighed, anchors, reorder);
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
    const rule = this.policy.layers[layer];
    if (!rule)
      throw new HotsetError("argument", {
        where: "LayerReuse.bind",
        expected: `a layer from 0 to ${this.policy.layers.length - 1}`,
        received: describe(layer),
      });
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
    const layerOf: LayerParts = { inputs, outputs: { out, lse }, scalars, lengths, window: scalars.window ?? 0, keep, made };
    try {
      const dense = keep(this.#dense.bind(inputs, { out, lse }, scalars));
      const begin = this.#begin(layer, rule, dense, layerOf);
      return new BoundLayer(
        () => {
          this.#enter(layer);
          return begin();
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
    for (const anchor of this.#anchors) anchor?.device?.dispose();
  }

  #begin(layer: number, rule: LayerRule, dense: Runnable, parts: LayerParts): () => Work {
    const { lengths, window } = parts;
    if (rule.kind === "full") return () => this.#denseWork(dense, lengths, window);
    const sparse = rule.kind === "anchor" ? this.#anchorWork(layer, rule, parts) : this.#reuseWork(layer, rule, parts);
    return () => {
      if (!this.#isShort(lengths)) return sparse();
      if (rule.kind === "anchor") this.#anchors[layer]?.lists.drop();
      return this.#denseWork(dense, lengths, window);
    };
  }

  #anchorWork(layer: number, rule: AnchorRule, { inputs, outputs, scalars, lengths, window, keep }: LayerParts): () => Work {
    const { lists, device, plan, select: selectPlan } = this.#anchors[layer] as Anchor;
    const { sink, recent: given } = this.policy;
    const recent = Math.max(1, given);
    const masses = device?.masses ?? (this.#masses as Float32Array);
    const weighed = keep((this.#weighed as Plan<typeof decodeAnchor>).bind(inputs, { ...outputs, masses }, scalars));
    const again =
      rule.refreshEvery > 1 || rule.attends
        ? keep(plan.bind({ ...inputs, selected: listsOf(lists, device) } as SparseInputs, outputs, scalars))
        : undefined;
    // Its own output, over what it has just listed, takes the place of that over everything.
    const listing = (selecting: Runnable): readonly Runnable[] =>
      rule.attends && again ? [weighed, selecting, again] : [weighed, selecting];
    const grows = (): boolean => lists.age + 1 < rule.refreshEvery && lists.grow(lengths, this.#counts.steps);
    const budgetNow = (): number => entriesOf(rule, this.policy.granularity, longest(lengths));
    if (device) {
      const selecting = keep(device.selecting(inputs.lengths as Tensor<"i32">));
      return () => {
        if (again && grows()) return this.#sparseWork([selecting, again], lists, lengths, window);
        // Taken before it runs: what selects the lists asks them how.
        device.lists.take(lengths, this.#counts.steps, { budget: budgetNow(), sink, recent });
        return { runs: listing(selecting), done: () => this.#listed(rule, Number.NaN, lengths, window) };
      };
    }
    const host = lists as AnchorLists;
    const target = { selected: host.selected, counts: host.counts };
    const selecting = keep(selectPlan.bind({ scores: masses, lengths }, target, { sink, recent }));
    return () => {
      if (again && grows()) return this.#sparseWork([again], lists, lengths, window);
      host.drop();
      selecting.set("budget", budgetNow());
      const done = () => {
        host.take(lengths, this.#counts.steps);
        this.#listed(rule, host.massKept(masses as Float32Array), lengths, window);
      };
      return { runs: listing(selecting), done };
    };
  }

  #reuseWork(
    layer: number,
    { source, headMap }: ReuseRule,
    { inputs, outputs, scalars, lengths, window, keep, made }: LayerParts,
  ): () => Work {
    const { lists, device, plan, select: selectPlan } = this.#anchors[source] as Anchor;
    const mapped = headMap && device?.mapped(this.#reorder as Plan<typeof embedding>, inputs.lengths as Tensor<"i32">, headMap, made);
    const own = headMap && !device ? hostArray(selectPlan, "selected", (lists as AnchorLists).selected.length, Int32Array) : undefined;
    const selected = mapped?.selected ?? own ?? listsOf(lists, device);
    const sparse = keep(plan.bind({ ...inputs, selected } as SparseInputs, outputs, scalars));
    return () => {
      if (!lists.isFor(this.#counts.steps))
        throw new HotsetError("argument", {
          where: `LayerReuse: layer ${layer}`,
          expected: `layer ${source}, its anchor, to have run before it in this step`,
          received: "layers in another order",
        });
      if (headMap && own) (lists as AnchorLists).mapped(headMap, own);
      return this.#sparseWork(mapped ? [mapped, sparse] : [sparse], lists, lengths, window, headMap);
    };
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

  #sparseWork(runs: readonly Runnable[], lists: Lists, lengths: Int32Array, window: number, headMap?: readonly number[]): Work {
    return {
      runs,
      done: () => {
        this.#counts.sparseRuns++;
        this.#counts.active = true;
        this.#counts.tokensAttended += lists.tokens(window, headMap);
        this.#see(lengths, window);
      },
    };
  }

  #listed({ attends }: AnchorRule, massKept: number, lengths: Int32Array, window: number): void {
    this.#counts.anchorRuns++;
    if (attends) this.#counts.active = true;
    this.#counts.mass += massKept;
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

type SparseInputs = InputsOf<typeof decodeSparse>;

/** What a layer was given, and what is disposed of with it. */
interface LayerParts {
  readonly inputs: LayerInputs;
  readonly outputs: Required<LayerOutputs>;
  readonly scalars: Readonly<Record<string, number>>;
  readonly lengths: Int32Array;
  readonly window: number;
  readonly keep: <T extends { dispose(): void }>(step: T) => T;
  readonly made: { dispose(): void }[];
}

const listsOf = (lists: Lists, device: DeviceAnchor | undefined): Int32Array | Tensor<"i32"> =>
  device?.selected ?? (lists as AnchorLists).selected;
