/** Streams with their rows; what the guard decides is clear in each, so that kernels may round before they decide. */
import type { InputRequest, Tensors } from "../../testing/case.js";
import { type Arrived, type StreamTensors, streamOf } from "../continual-single/inputs.js";
import { attend, insert, type RingAxes, turnOf } from "../continual-single/ring.js";
import { changeOf, rowExtra, store, unit } from "./reference.js";

export interface RetroactiveSettings {
  spread: number;
  arrived: Arrived;
  scale?: number;
  tolerance?: number;
  /** The largest estimate that a row comes with, of `tolerance`. */
  estimates?: number;
  change?: (tensors: StreamTensors, axes: RingAxes) => void;
}

export const defaultTolerance = (window: number): number => Math.max(1e-5, 2.5 * unit * window);

export const retroactive =
  ({ spread, arrived, scale, tolerance, estimates = 0.7, change }: RetroactiveSettings) =>
  (request: InputRequest): Tensors => {
    const axes = request.axes as RingAxes;
    const stream = streamOf(request, spread, arrived);
    change?.(stream, axes);
    const rows = rowsOf(
      request,
      stream,
      Math.fround(scale ?? 1 / Math.sqrt(axes.headDim)),
      estimates,
      Math.fround(tolerance ?? defaultTolerance(axes.window)),
    );
    return { ...stream, rows };
  };

/** Exact rows, rounded to f32, with estimates that they need not have earned. */
function rowsOf({ axes, random }: InputRequest, stream: StreamTensors, scale: number, estimates: number, tolerance: number): Float32Array {
  const { streams, heads, window, headDim } = axes as RingAxes;
  const width = headDim + rowExtra;
  const rows = new Float32Array(streams * heads * window * width).fill(Number.NaN);
  const later = { ...stream, keyRing: stream.keyRing.slice(), valueRing: stream.valueRing.slice() };
  for (let head = 0; head < streams * heads; head++) {
    const steps = stream.steps[Math.floor(head / heads)] as number;
    const turn = turnOf(steps, window);
    if (!turn) continue;
    const leaving = insert(later, axes as RingAxes, head, turn);
    for (let slot = 0; slot < Math.min(steps, window); slot++) {
      const query = stream.queryRing.subarray((head * window + slot) * headDim, (head * window + slot + 1) * headDim);
      const before = attend(query, stream, axes as RingAxes, head, Math.min(steps, window), scale);
      const after = attend(query, later, axes as RingAxes, head, turn.held, scale);
      const kept = rows.subarray((head * window + slot) * width, (head * window + slot + 1) * width);
      const error = (estimate: number): number =>
        changeOf(after, query, later, axes as RingAxes, head, turn, leaving, Math.fround(estimate), scale).error / tolerance;
      const clear = (ratio: number): boolean => !(ratio > 0.8 && ratio < 1.25);
      const estimate = random.pick([0, estimates * tolerance * random.uniform(), estimates * tolerance]);
      store(kept, before, [estimate, 0, 0.9 * tolerance].find((one) => clear(error(one))) ?? 0);
    }
  }
  return rows;
}
