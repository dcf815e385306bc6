/** What one run of a layer takes: everything, a new list, or a list that there is. */
import { HotsetError } from "../errors.js";
import type { embedding } from "../model/embedding/spec.js";
import type { InputsOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import type { Tensor } from "../tensor.js";
import type { decodeAnchor } from "./decode-anchor/spec.js";
import type { decodeSparse } from "./decode-sparse/spec.js";
import type { LayerInputs, LayerOutputs } from "./layer-reuse.js";
import type { Anchor } from "./layer-reuse-anchors.js";
import type { ReuseCounts } from "./layer-reuse-counts.js";
import type { DeviceAnchor } from "./layer-reuse-device.js";
import { attending, selecting } from "./layer-reuse-host.js";
import type { AnchorLists } from "./layer-reuse-lists.js";
import type { AnchorRule, LayerPolicy, LayerRule, ReuseRule } from "./layer-reuse-policy.js";
import { entriesOf, gateOf, longest, shortest } from "./layer-reuse-sizes.js";
import type { Runnable, Work } from "./layer-reuse-step.js";

/** What the layers of one LayerReuse have in common. */
export interface Shared {
  readonly policy: LayerPolicy;
  readonly resident: boolean;
  readonly anchors: readonly (Anchor | undefined)[];
  readonly counts: ReuseCounts;
  /** Where there is an anchor; `masses` on the host. */
  readonly weighed: Plan<typeof decodeAnchor> | undefined;
  readonly masses: Float32Array | undefined;
  /** Of resident layers: reorders masses for a head map. */
  readonly reorder: Plan<typeof embedding> | undefined;
}

/** What a layer was given, and what is disposed of with it. */
export interface LayerParts {
  readonly inputs: LayerInputs;
  readonly outputs: Required<LayerOutputs>;
  readonly scalars: Readonly<Record<string, number>>;
  readonly lengths: Int32Array;
  readonly window: number;
  readonly keep: <T extends { dispose(): void }>(step: T) => T;
  readonly made: { dispose(): void }[];
}

/** Called at each run of a layer. */
export function workOf(shared: Shared, layer: number, rule: LayerRule, dense: Runnable, parts: LayerParts): () => Work {
  const { lengths, window } = parts;
  const { policy, counts, resident } = shared;
  const everything: Work = { runs: [dense], done: () => counts.dense(lengths, window) };
  if (rule.kind === "full") return () => everything;
  const own = shared.anchors[layer];
  const anchor = own ?? (shared.anchors[(rule as ReuseRule).source] as Anchor);
  const made = { ...shared, layer, parts, anchor };
  const sparse =
    rule.kind === "reuse" ? reuseWork(made, rule) : anchor.device ? deviceAnchorWork(made, anchor.device, rule) : anchorWork(made, rule);
  return () => {
    // A device's lists are all made at once, by one budget: the shortest sequence decides.
    const gate = resident ? (shortest(lengths) < policy.minContext ? "all" : "none") : gateOf(lengths, policy.minContext);
    if (gate !== "all") return sparse(gate === "some");
    own?.lists.drop();
    return everything;
  };
}

/** `some`: some sequences of the batch attend to everything. */
type SparseWork = (some: boolean) => Work;

interface Making extends Shared {
  readonly layer: number;
  readonly parts: LayerParts;
  readonly anchor: Anchor;
}

function anchorWork({ policy, counts, weighed: plan, masses: shared, parts, anchor }: Making, rule: AnchorRule): SparseWork {
  const { lengths, window, inputs, outputs, scalars, keep } = parts;
  const masses = shared as Float32Array;
  const lists = anchor.lists as AnchorLists;
  const weighed = keep((plan as Plan<typeof decodeAnchor>).bind(inputs, { ...outputs, masses }, scalars));
  const again = rule.refreshEvery > 1 || rule.attends ? attending(anchor, parts) : undefined;
  const select = selecting(anchor, masses, { sink: policy.sink, recent: Math.max(1, policy.recent) }, parts);
  const taken: Runnable = { run: () => lists.take(lengths, counts.steps) };
  const attends = rule.attends !== undefined;
  const done = () => counts.listed(attends, lists.massKept(masses), lengths, window);
  return (some) => {
    if (again && lists.age + 1 < rule.refreshEvery && lists.grow(lengths, counts.steps))
      return { runs: [again(some)], done: () => counts.sparse(lists, lengths, window) };
    lists.drop();
    const runs = [weighed, ...select(), taken];
    // Its own output, over what it has just listed, takes the place of that over everything.
    return { runs: attends && again ? [...runs, again(some)] : runs, done };
  };
}

function deviceAnchorWork({ policy, counts, weighed: plan, parts, anchor }: Making, device: DeviceAnchor, rule: AnchorRule): SparseWork {
  const { lengths, window, inputs, outputs, scalars, keep } = parts;
  const { granularity, sink, recent } = policy;
  const { lists, masses, selected } = device;
  const weighed = keep((plan as Plan<typeof decodeAnchor>).bind(inputs, { ...outputs, masses }, scalars));
  const attends = rule.attends !== undefined;
  const again =
    rule.refreshEvery > 1 || attends ? keep(anchor.plan.bind({ ...inputs, selected } as SparseInputs, outputs, scalars)) : undefined;
  const select = keep(device.selecting(inputs.lengths as Tensor<"i32">));
  return () => {
    if (again && lists.age + 1 < rule.refreshEvery && lists.grow(lengths, counts.steps))
      return { runs: [select, again], done: () => counts.sparse(lists, lengths, window) };
    // Taken before it runs: what selects the lists asks them how.
    const budget = entriesOf(rule, granularity, longest(lengths));
    lists.take(lengths, counts.steps, { budget, sink, recent: Math.max(1, recent) });
    const runs = attends && again ? [weighed, select, again] : [weighed, select];
    return { runs, done: () => counts.listed(attends, Number.NaN, lengths, window) };
  };
}

function reuseWork({ counts, layer, parts, anchor, reorder }: Making, { source, headMap }: ReuseRule): SparseWork {
  const { inputs, outputs, scalars, lengths, window, keep, made } = parts;
  const { lists, device } = anchor;
  let runs: (some: boolean) => readonly Runnable[];
  if (device) {
    const mapped = headMap && device.mapped(reorder as Plan<typeof embedding>, inputs.lengths as Tensor<"i32">, headMap, made);
    const selected = mapped?.selected ?? device.selected;
    const sparse = keep(anchor.plan.bind({ ...inputs, selected } as SparseInputs, outputs, scalars));
    runs = () => (mapped ? [mapped, sparse] : [sparse]);
  } else {
    const sparse = attending(anchor, parts, headMap);
    runs = (some) => [sparse(some)];
  }
  const done = () => counts.sparse(lists, lengths, window, headMap);
  return (some) => {
    if (!lists.isFor(counts.steps))
      throw new HotsetError("argument", {
        where: `LayerReuse: layer ${layer}`,
        expected: `layer ${source}, its anchor, to have run before it in this step`,
        received: "layers in another order",
      });
    return { runs: runs(some), done };
  };
}

type SparseInputs = InputsOf<typeof decodeSparse>;
