/** Streams in the middle of their way, for the cases of both continual ops. */
import type { InputRequest, Tensors } from "../../testing/case.js";
import type { RingAxes, RingTensors } from "./ring.js";

export interface StreamTensors extends RingTensors {
  queryRing: Float32Array;
}

/** Tokens that have arrived in each stream. */
export type Arrived = (stream: number, axes: RingAxes) => number;

/** A stream after `arrived` tokens, whose logits have a deviation of `spread`; slots that nothing has reached hold NaN. */
export function streamOf({ axes, random }: InputRequest, spread: number, arrived: Arrived): StreamTensors {
  const { streams, heads, window, headDim } = axes as RingAxes;
  const newest = (size: number) => random.values(streams * heads * headDim, () => size * random.normal());
  const steps = new Int32Array(streams);
  const ring = (size: number) => random.values(streams * heads * window * headDim, () => size * random.normal());
  const [keyRing, valueRing, queryRing] = [ring(1), ring(1), ring(spread)];
  for (let stream = 0; stream < streams; stream++) {
    const before = arrived(stream, axes as RingAxes);
    steps[stream] = before < 2 * window ? before : window + (before % window);
    for (let head = stream * heads; head < (stream + 1) * heads; head++)
      for (const each of [keyRing, valueRing, queryRing])
        each.fill(Number.NaN, (head * window + Math.min(before, window)) * headDim, (head + 1) * window * headDim);
  }
  return { query: newest(spread), key: newest(1), value: newest(1), keyRing, valueRing, queryRing, steps };
}

export const long: Arrived = (stream, { window }) => 3 * window + 5 * stream + 2;

export const single =
  (spread: number, arrived: Arrived, change?: (tensors: StreamTensors, axes: RingAxes) => void) =>
  (request: InputRequest): Tensors => {
    const stream = streamOf(request, spread, arrived);
    change?.(stream, request.axes as RingAxes);
    const { queryRing: _, ...tensors } = stream;
    return tensors;
  };

/** Head by head: a NaN key and an infinite value that stay, the same leaving, a NaN key that arrives, an infinite query. */
export function special({ query, key, keyRing, valueRing, steps }: StreamTensors, { window, headDim }: RingAxes): void {
  const leaving = (steps[0] as number) % window;
  const staying = (leaving + 2) % window;
  const at = (head: number, slot: number): number => (head * window + slot) * headDim + 1;
  keyRing[at(0, staying)] = Number.NaN;
  valueRing[at(1, staying)] = Number.POSITIVE_INFINITY;
  keyRing[at(2, leaving)] = Number.NaN;
  valueRing[at(3, leaving)] = Number.NEGATIVE_INFINITY;
  key[4 * headDim] = Number.NaN;
  query[5 * headDim] = Number.POSITIVE_INFINITY;
}

export const sizes = (streams: number, heads: number, window: number, headDim: number): RingAxes => ({ streams, heads, window, headDim });

export const badSteps = ({ steps }: StreamTensors, { window }: RingAxes): void => {
  steps[1] = 2 * window;
  steps[steps.length - 1] = -1;
};
