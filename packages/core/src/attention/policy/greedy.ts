/** Searches by a loss that is measured: a function of the plan, such as a model's loss on a text. */
import { describe, HotsetError } from "../../errors.js";
import { anchorsOf, checkSources, maskOf, wholeFrom } from "./similarity.js";

/** The loss of a model whose layers take these lists; called with sound plans only, one call after the other. */
export type PlanLoss = (sources: readonly number[]) => number | Promise<number>;

/** A plan that was tried and taken, and its loss. */
export interface LossStep {
  readonly sources: readonly number[];
  readonly loss: number;
  /** What was changed, in words. */
  readonly change: string;
}

export interface LossSearch {
  readonly sources: readonly number[];
  readonly loss: number;
  /** From the first plan to the last, both included. */
  readonly steps: readonly LossStep[];
  /** How often the loss was measured. */
  readonly evaluations: number;
}

export interface GreedySettings {
  readonly layers: number;
  /** Layers that still make a list of their own at the end, at least 1. */
  readonly anchors: number;
  /** Ends before, rather than take a plan with a larger loss. */
  readonly maxLoss?: number | undefined;
  /** Layers that keep a list of their own. */
  readonly own?: Iterable<number> | undefined;
}

/**
 * IndexCache's form: from all layers with lists of their own, again and again the layer is turned to reuse that raises the
 * loss least; a layer takes the list of the nearest one before it that makes one. Among equals the earlier layer. O(L^2)
 * evaluations. Throws HotsetError where a loss is no number.
 */
export async function searchGreedy(loss: PlanLoss, { layers, anchors, maxLoss, own }: GreedySettings): Promise<LossSearch> {
  wholeFrom("searchGreedy: layers", layers, 1, 65536);
  const fixed = maskOf("searchGreedy: own", layers, own);
  fixed[0] = true;
  wholeFrom("searchGreedy: anchors", anchors, fixed.filter(Boolean).length, layers);
  const { measure, count } = counted("searchGreedy", loss);
  const making = new Array<boolean>(layers).fill(true);
  const first = nearest(making);
  const steps: LossStep[] = [{ sources: first, loss: await measure(first), change: "all layers make a list" }];
  for (let left = layers; left > anchors; left--) {
    let best: (LossStep & { layer: number }) | undefined;
    for (let layer = 1; layer < layers; layer++) {
      if (fixed[layer] || !making[layer]) continue;
      making[layer] = false;
      const sources = nearest(making);
      making[layer] = true;
      const value = await measure(sources);
      if (!best || value < best.loss) best = { sources, loss: value, change: `layer ${layer} takes the list of ${sources[layer]}`, layer };
    }
    if (!best || (maxLoss !== undefined && best.loss > maxLoss)) break;
    making[best.layer] = false;
    const { sources, loss: value, change } = best;
    steps.push({ sources, loss: value, change });
  }
  return ended(steps, count());
}

export interface RepairSettings {
  /** Repair ends when the loss is at most this. */
  readonly maxLoss: number;
  /** Layers that may make lists, at most. Default: all. */
  readonly maxAnchors?: number | undefined;
  /** Layers that keep a list of their own. */
  readonly own?: Iterable<number> | undefined;
}

/**
 * Mends a plan by what is measured: while the loss is above `maxLoss`, the best change is taken that lowers it. Changes at no
 * cost come first: another source for a layer, or one layer turned to reuse for another turned to a list of its own; then one
 * more list, for its layer alone or for all later layers of its segment. Ends where nothing lowers the loss.
 */
export async function repairPlan(
  sources: readonly number[],
  loss: PlanLoss,
  { maxLoss, maxAnchors = sources.length, own }: RepairSettings,
): Promise<LossSearch> {
  checkSources("repairPlan", sources);
  if (typeof maxLoss !== "number" || Number.isNaN(maxLoss))
    throw new HotsetError("argument", { where: "repairPlan: maxLoss", expected: "a number", received: describe(maxLoss) });
  const fixed = maskOf("repairPlan: own", sources.length, own);
  const { measure, count } = counted("repairPlan", loss);
  const steps: LossStep[] = [{ sources: [...sources], loss: await measure(sources), change: "the plan as given" }];
  for (;;) {
    const now = steps.at(-1) as LossStep;
    if (now.loss <= maxLoss) break;
    const better =
      (await bestOf(free(now.sources, fixed), measure, now.loss)) ??
      (anchorsOf(now.sources).length < maxAnchors ? await bestOf(oneMore(now.sources), measure, now.loss) : undefined);
    if (!better) break;
    steps.push(better);
  }
  return ended(steps, count());
}

interface Change {
  readonly sources: readonly number[];
  readonly change: string;
}

async function bestOf(changes: Iterable<Change>, measure: (sources: readonly number[]) => Promise<number>, below: number) {
  let best: LossStep | undefined;
  for (const { sources, change } of changes) {
    const loss = await measure(sources);
    if (loss < (best?.loss ?? below)) best = { sources, loss, change };
  }
  return best;
}

/** Plans with as many lists. */
function* free(sources: readonly number[], fixed: readonly boolean[]): Generator<Change> {
  const anchors = anchorsOf(sources);
  for (const [layer, source] of sources.entries()) {
    if (source === layer) continue;
    for (const anchor of anchors)
      if (anchor < layer && anchor !== source)
        yield { sources: sources.with(layer, anchor), change: `layer ${layer} takes the list of ${anchor}, not ${source}` };
  }
  for (const more of oneMore(sources))
    for (const anchor of anchors) {
      if (anchor === 0 || fixed[anchor]) continue;
      const rest = anchorsOf(more.sources).filter((one) => one !== anchor);
      const before = (layer: number): number => rest.findLast((one) => one <= layer) as number;
      const moved = more.sources.map((source, layer) => (source === anchor ? before(layer) : source));
      yield { sources: moved, change: `${more.change}, and layer ${anchor} takes the list of ${moved[anchor]}` };
    }
}

/** Plans with one more list: for its layer alone, or also for the later layers that took the same one. */
function* oneMore(sources: readonly number[]): Generator<Change> {
  for (const [layer, source] of sources.entries()) {
    if (source === layer) continue;
    const alone = sources.with(layer, layer);
    yield { sources: alone, change: `layer ${layer} makes a list` };
    const all = alone.map((one, later) => (later > layer && one === source ? layer : one));
    if (all.some((one, later) => one !== alone[later]))
      yield { sources: all, change: `layer ${layer} makes a list, also for those after it` };
  }
}

/** Each layer takes the list of itself or of the nearest one before it that makes one. */
function nearest(own: readonly boolean[]): number[] {
  let last = 0;
  return own.map((is, layer) => {
    if (is) last = layer;
    return last;
  });
}

function counted(where: string, loss: PlanLoss) {
  const known = new Map<string, number>();
  return {
    count: () => known.size,
    /** Each plan is measured once. */
    async measure(sources: readonly number[]): Promise<number> {
      const key = sources.join();
      const before = known.get(key);
      if (before !== undefined) return before;
      const value = await loss(sources);
      if (typeof value !== "number" || Number.isNaN(value))
        throw new HotsetError("argument", { where: `${where}: loss of [${key}]`, expected: "a number", received: describe(value) });
      known.set(key, value);
      return value;
    },
  };
}

function ended(steps: readonly LossStep[], evaluations: number): LossSearch {
  const { sources, loss } = steps.at(-1) as LossStep;
  return { sources, loss, steps, evaluations };
}
