import { describe, HotsetError } from "../../errors.js";

export interface BatchSizeSettings {
  /** What a frame may take, in the unit that steps are measured in. */
  readonly deadline: number;
  /** The largest batch there is. */
  readonly largest: number;
  /** Steps that a frame goes through, one after the other; default 1. */
  readonly denoisingSteps?: number;
  /** The share of the deadline that is planned with, above 0 and at most 1; default 0.95. */
  readonly margin?: number;
  /** What a measurement still counts one measurement later, above 0 and at most 1; default 0.9. */
  readonly decay?: number;
}

export interface BatchChoice {
  readonly batch: number;
  /** What a frame is predicted to take; undefined before anything was measured. */
  readonly predicted: number | undefined;
  /** Whether that meets the deadline. A batch of 1 is chosen even where it does not. */
  readonly meets: boolean;
}

/**
 * How many frames to put through a step together: the largest batch whose frames are predicted to meet their deadline.
 *
 * A frame leaves a batch when the batch does, so it takes denoisingSteps * time(batch). time(batch) = fixed + each * batch is
 * fitted to what was measured, by least squares with weights that fade, so that it follows a machine that others use. From one size of
 * batch alone nothing is known of the fixed part, and time is taken to be in proportion: larger batches are tried as far as that
 * lets them, and what they show is fitted. So it errs towards small batches: it may stay where one frame more would, in
 * proportion, be too much. Before any measurement the batch is 1.
 *
 * The aim is that of the SLO-aware batching of StreamDiffusionV2 (arXiv 2511.07399); the affine fit, the fading and the margin are
 * decided here.
 */
export class BatchSizer {
  readonly deadline: number;
  readonly largest: number;
  readonly denoisingSteps: number;
  readonly margin: number;
  readonly decay: number;
  // Weighted sums: of 1, batch, time, batch^2, batch * time.
  #count = 0;
  #batch = 0;
  #time = 0;
  #square = 0;
  #product = 0;

  constructor({ deadline, largest, denoisingSteps = 1, margin = 0.95, decay = 0.9 }: BatchSizeSettings) {
    if (!(deadline > 0 && Number.isFinite(deadline))) refuse("a deadline above 0", deadline);
    if (!Number.isInteger(largest) || largest < 1) refuse("a largest batch of at least 1", largest);
    if (!Number.isInteger(denoisingSteps) || denoisingSteps < 1) refuse("denoisingSteps of at least 1", denoisingSteps);
    if (!(margin > 0 && margin <= 1)) refuse("a margin above 0 and at most 1", margin);
    if (!(decay > 0 && decay <= 1)) refuse("a decay above 0 and at most 1", decay);
    this.deadline = deadline;
    this.largest = largest;
    this.denoisingSteps = denoisingSteps;
    this.margin = margin;
    this.decay = decay;
  }

  /** A step of `batch` frames took so long. */
  observe(batch: number, time: number): void {
    if (!Number.isInteger(batch) || batch < 1 || batch > this.largest) refuse(`a batch from 1 to ${this.largest}`, batch);
    if (!(time > 0 && Number.isFinite(time))) refuse("a time above 0", time);
    this.#count = this.#count * this.decay + 1;
    this.#batch = this.#batch * this.decay + batch;
    this.#time = this.#time * this.decay + time;
    this.#square = this.#square * this.decay + batch * batch;
    this.#product = this.#product * this.decay + batch * time;
  }

  /** What a frame of such a batch is predicted to take; undefined before anything was measured. */
  predict(batch: number): number | undefined {
    if (this.#count === 0) return undefined;
    const [size, time] = [this.#batch / this.#count, this.#time / this.#count];
    const spread = this.#square / this.#count - size * size;
    // Batches of one size, or nearly: their measurements' noise is no slope.
    const apart = spread > 1e-3 * size * size;
    const slope = apart ? (this.#product / this.#count - size * time) / spread : time / size;
    // Neither part of a time is below 0.
    const each = Math.min(Math.max(slope, 0), time / size);
    return this.denoisingSteps * (time + each * (batch - size));
  }

  choose(): BatchChoice {
    const meets = (batch: number): boolean => (this.predict(batch) as number) <= this.margin * this.deadline;
    if (this.#count === 0) return { batch: 1, predicted: undefined, meets: true };
    let batch = 1;
    while (batch < this.largest && meets(batch + 1)) batch++;
    return { batch, predicted: this.predict(batch), meets: meets(batch) };
  }
}

function refuse(expected: string, received: unknown): never {
  throw new HotsetError("argument", { where: "BatchSizer", expected, received: describe(received) });
}
