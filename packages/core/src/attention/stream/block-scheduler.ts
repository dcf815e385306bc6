import { describe, HotsetError } from "../../errors.js";

/** A worker's share: blocks from `first` up to `end`. */
export interface BlockRange {
  readonly first: number;
  readonly end: number;
}

/** What a worker takes: `fixed` a step, whatever its blocks, and `rate` for each unit of cost. */
export interface WorkerSpeed {
  readonly rate: number;
  readonly fixed: number;
}

/** The time of the slowest worker. */
export const slowest = (costs: readonly number[], workers: readonly WorkerSpeed[], ranges: readonly BlockRange[]): number =>
  Math.max(
    ...workers.map(({ rate, fixed }, worker) => {
      const { first, end } = ranges[worker] as BlockRange;
      return fixed + rate * costs.slice(first, end).reduce((sum, cost) => sum + cost, 0);
    }),
  );

/**
 * Consecutive blocks for each worker, in order, so that the slowest takes least: exact, by dynamic programming over (worker, last
 * block), O(workers * blocks^2). A worker may have none. Among equals each worker ends as early as can be, the last one first.
 */
export function partitionBlocks(costs: readonly number[], workers: readonly WorkerSpeed[]): BlockRange[] {
  if (workers.length === 0) refuse("at least one worker", workers);
  for (const cost of costs) if (!(cost >= 0 && Number.isFinite(cost))) refuse("costs of at least 0", cost);
  for (const { rate, fixed } of workers) {
    if (!(rate > 0 && Number.isFinite(rate))) refuse("rates above 0", rate);
    if (!(fixed >= 0 && Number.isFinite(fixed))) refuse("fixed times of at least 0", fixed);
  }
  const before = [0];
  for (const cost of costs) before.push((before.at(-1) as number) + cost);
  // Of the workers so far, with the blocks so far: the time of the slowest; and where the last one's share begins.
  let best = before.map((_, end) => (end === 0 ? 0 : Number.POSITIVE_INFINITY));
  const starts: number[][] = [];
  for (const { rate, fixed } of workers) {
    const start = new Array<number>(before.length).fill(0);
    best = before.map((upTo, end) => {
      let least = Number.POSITIVE_INFINITY;
      for (let first = 0; first <= end; first++) {
        const time = Math.max(best[first] as number, fixed + rate * (upTo - (before[first] as number)));
        if (time < least) [least, start[end]] = [time, first];
      }
      return least;
    });
    starts.push(start);
  }
  const ranges: BlockRange[] = [];
  for (let worker = workers.length - 1, end = costs.length; worker >= 0; worker--) {
    const first = starts[worker]?.[end] as number;
    ranges.unshift({ first, end });
    end = first;
  }
  return ranges;
}

export interface BlockSchedulerSettings {
  readonly workers: number;
  /** [blocks]: what each costs relative to the others; default all alike. */
  readonly costs?: readonly number[];
  readonly blocks?: number;
  /** Blocks move only where the slowest worker gains more than this share of its time; default 0.05. */
  readonly threshold?: number;
  /** What a measurement still counts one measurement later, at least 0 and below 1; default 0.8. */
  readonly decay?: number;
}

export interface BlockPlan {
  readonly ranges: readonly BlockRange[];
  /** Blocks whose worker changed. */
  readonly moved: number;
  /** The time of the slowest worker now, as estimated. */
  readonly predicted: number;
}

/**
 * Which workers (devices of a pipeline) run which consecutive blocks of a model. It starts with equal shares of the costs, learns each
 * worker's rate and its fixed part (encoding on the first, decoding on the last) from measured times, and moves blocks when the best
 * partition gains more than the threshold: each move costs weights and caches that change hands.
 *
 * The aim is that of the block scheduler of StreamDiffusionV2 (arXiv 2511.07399), to balance the stages of a pipeline by measured time;
 * the exact partition, the estimates and the threshold are decided here. A worker that has had no block is taken to be as fast as the mean of those measured.
 */
export class BlockScheduler {
  readonly costs: readonly number[];
  readonly threshold: number;
  readonly decay: number;
  readonly #rates: (number | undefined)[];
  readonly #fixed: number[];
  #ranges: readonly BlockRange[];

  constructor({ workers, costs, blocks = costs?.length ?? 0, threshold = 0.05, decay = 0.8 }: BlockSchedulerSettings) {
    if (!Number.isInteger(workers) || workers < 1) refuse("at least one worker", workers);
    if (!Number.isInteger(blocks) || blocks < 1) refuse("at least one block", blocks);
    if (costs && costs.length !== blocks) refuse(`costs of ${blocks} blocks`, costs);
    if (!(threshold >= 0 && threshold < 1)) refuse("a threshold of at least 0 and below 1", threshold);
    if (!(decay >= 0 && decay < 1)) refuse("a decay of at least 0 and below 1", decay);
    this.costs = costs ? [...costs] : new Array<number>(blocks).fill(1);
    if (!this.costs.some((cost) => cost > 0)) refuse("a block that costs something", costs);
    this.threshold = threshold;
    this.decay = decay;
    this.#rates = new Array(workers).fill(undefined);
    this.#fixed = new Array<number>(workers).fill(0);
    this.#ranges = partitionBlocks(this.costs, this.speeds());
  }

  get ranges(): readonly BlockRange[] {
    return this.#ranges;
  }

  /** What is known of each worker. */
  speeds(): WorkerSpeed[] {
    const known = this.#rates.filter((rate) => rate !== undefined);
    const usual = known.length ? known.reduce((sum, rate) => sum + rate, 0) / known.length : 1;
    return this.#rates.map((rate, worker) => ({ rate: rate ?? usual, fixed: this.#fixed[worker] as number }));
  }

  /** A step of a worker took `time`, and `fixed` of it not for its blocks. */
  observe(worker: number, time: number, fixed = 0): void {
    if (!Number.isInteger(worker) || worker < 0 || worker >= this.#rates.length) refuse(`a worker below ${this.#rates.length}`, worker);
    if (!(time > 0 && Number.isFinite(time))) refuse("a time above 0", time);
    if (!(fixed >= 0 && fixed <= time)) refuse("a fixed part of at least 0 and at most the time", fixed);
    const { first, end } = this.#ranges[worker] as BlockRange;
    const cost = this.costs.slice(first, end).reduce((sum, one) => sum + one, 0);
    if (cost > 0 && time === fixed) refuse("blocks that take time", time);
    const seen = this.#rates[worker];
    const mixed = (old: number | undefined, now: number): number => (old === undefined ? now : this.decay * old + (1 - this.decay) * now);
    this.#fixed[worker] = mixed(seen === undefined ? undefined : this.#fixed[worker], fixed);
    if (cost > 0) this.#rates[worker] = mixed(seen, (time - fixed) / cost);
  }

  /** The shares from now on: the best ones where they gain enough, else those there were. */
  plan(): BlockPlan {
    const speeds = this.speeds();
    const best = partitionBlocks(this.costs, speeds);
    const [now, then] = [slowest(this.costs, speeds, this.#ranges), slowest(this.costs, speeds, best)];
    if (!(now - then > this.threshold * now)) return { ranges: this.#ranges, moved: 0, predicted: now };
    const owner = (ranges: readonly BlockRange[], block: number) => ranges.findIndex(({ first, end }) => block >= first && block < end);
    const moved = this.costs.filter((_, block) => owner(best, block) !== owner(this.#ranges, block)).length;
    this.#ranges = best;
    return { ranges: best, moved, predicted: then };
  }
}

function refuse(expected: string, received: unknown): never {
  throw new HotsetError("argument", { where: "BlockScheduler", expected, received: describe(received) });
}
