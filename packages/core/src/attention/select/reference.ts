import type { ReferenceCall } from "../../op/define.js";

export interface SelectTensors {
  scores: Float32Array;
  lengths: Int32Array;
  selected: Int32Array;
  counts: Uint32Array;
}

export type SelectAxes = Record<"batch" | "heads" | "granules" | "granularity" | "lists" | "k", number>;

/** The last and first granules that are forced, then the best of the rest by (score, lower index), in ascending order. */
export function reference({ axes, tensors, scalars, fail }: ReferenceCall): void {
  const { batch, granules, granularity, lists, k } = axes as SelectAxes;
  const { scores, lengths, selected, counts } = tensors as SelectTensors;
  selected.fill(-1, 0, batch * lists * k);
  counts.fill(0, 0, batch * lists);
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > granules * granularity) {
      fail("lengths", b, length);
      continue;
    }
    const { first, last, total } = forced(axes as SelectAxes, scalars, length);
    const end = Math.ceil(length / granularity) - last;
    for (let list = 0; list < lists; list++) {
      const rest = Array.from({ length: end - first }, (_, i) => first + i);
      const score = scoresOf(axes as SelectAxes, scores, b, list);
      rest.sort((i, j) => compare(score(i), score(j)) || i - j);
      const chosen = [
        ...Array.from({ length: first }, (_, i) => i),
        ...rest.slice(0, total - first - last).sort((i, j) => i - j),
        ...Array.from({ length: last }, (_, i) => end + i),
      ];
      selected.set(chosen, (b * lists + list) * k);
      counts[b * lists + list] = total;
    }
  }
}

/** Granules listed of a sequence of so many tokens, and how many of its first and last are among them whatever they score. */
export function forced({ granularity, k }: SelectAxes, scalars: Readonly<Record<string, number>>, length: number) {
  const { budget, sink, recent } = scalars as Record<"budget" | "sink" | "recent", number>;
  const all = Math.ceil(length / granularity);
  const total = Math.min(budget || k, k, all);
  const begun = Math.floor((length - Math.min(recent, length)) / granularity);
  const last = recent === 0 ? 0 : Math.min(total, all - begun);
  const first = Math.min(total - last, Math.ceil(Math.min(sink, length) / granularity));
  return { first, last, total };
}

/** The score of a granule for a list: its head's, or the sum over the heads, rounded to f32 at each addition. */
function scoresOf({ heads, granules, lists }: SelectAxes, scores: Float32Array, b: number, list: number) {
  if (lists > 1 || heads === 1) return (granule: number): number => scores[(b * heads + list) * granules + granule] as number;
  return (granule: number): number => {
    let sum = scores[b * heads * granules + granule] as number;
    for (let h = 1; h < heads; h++) sum = Math.fround(sum + (scores[(b * heads + h) * granules + granule] as number));
    return sum;
  };
}

/** Larger first, a NaN last. */
function compare(a: number, b: number): number {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return a > b ? -1 : a < b ? 1 : 0;
}
