/** The steps of layers whose lists lie on the host: those that make a list, and those that attend to one. */
import type { InputsOf } from "../op/types.js";
import type { Step } from "../step.js";
import type { decodeSparse } from "./decode-sparse/spec.js";
import type { Anchor } from "./layer-reuse-anchors.js";
import type { AnchorLists } from "./layer-reuse-lists.js";
import { entriesOf, hostArray } from "./layer-reuse-sizes.js";
import type { Runnable } from "./layer-reuse-step.js";
import type { LayerParts } from "./layer-reuse-work.js";
import type { select } from "./select/spec.js";

/**
 * What lists the granules of each sequence by `masses`, in the order of the runs. Each sequence has the budget of its own
 * length: those with one budget are selected together, others one by one.
 */
export function selecting(
  { rule, select: together, selectOne, lists }: Anchor,
  masses: Float32Array,
  { sink, recent }: { readonly sink: number; readonly recent: number },
  { lengths, keep }: LayerParts,
): () => readonly Runnable[] {
  const { selected, counts, sizes } = lists as AnchorLists;
  const whole = keep(together.bind({ scores: masses, lengths }, { selected, counts }, { sink, recent }));
  let single: Step<typeof select>[] | undefined;
  const one = (plan: NonNullable<Anchor["selectOne"]>, b: number) => {
    const row = <A extends { readonly length: number; subarray(from: number, to: number): A }>(array: A): A => {
      const size = array.length / sizes.batch;
      return array.subarray(b * size, (b + 1) * size);
    };
    return keep(
      plan.bind({ scores: row(masses), lengths: row(lengths) }, { selected: row(selected), counts: row(counts) }, { sink, recent }),
    );
  };
  const budgetOf = (length: number): number => entriesOf(rule, sizes.granularity, length);
  return () => {
    let [budget, differ] = [0, false];
    for (const length of lengths) {
      if (length <= 0) continue;
      const own = budgetOf(length);
      differ ||= budget !== 0 && own !== budget;
      budget = own;
    }
    if (!differ || !selectOne) {
      whole.set("budget", Math.max(1, budget));
      return [whole];
    }
    single ??= Array.from({ length: sizes.batch }, (_, b) => one(selectOne, b));
    for (const [b, step] of single.entries()) step.set("budget", budgetOf(Math.max(0, lengths[b] as number)));
    return single;
  };
}

/**
 * A layer over the lists of an anchor, as they are when it runs. `some`: some sequences of the batch attend to everything,
 * that is to a list of all their granules, which may be longer than those of the anchor.
 */
export function attending(
  { lists, plan, wide }: Anchor,
  { inputs, outputs, scalars, keep }: LayerParts,
  headMap?: readonly number[],
): (some: boolean) => Runnable {
  const host = lists as AnchorLists;
  const over = (some: boolean): Runnable => {
    const of = some && wide ? wide : plan;
    const { batch, lists: each, k } = of.axes;
    const own = some || headMap ? hostArray(of, "selected", batch * each * k, Int32Array) : undefined;
    const step = keep(of.bind({ ...inputs, selected: own ?? host.selected } as InputsOf<typeof decodeSparse>, outputs, scalars));
    if (!own) return step;
    return {
      run() {
        host.spread(own, headMap);
        step.run();
      },
      runAsync() {
        host.spread(own, headMap);
        return step.runAsync();
      },
    };
  };
  const narrow = over(false);
  let mixed: Runnable | undefined;
  return (some) => {
    if (some) mixed ??= over(true);
    return some ? (mixed as Runnable) : narrow;
  };
}
