/** The structures of streaming attention, against plain models of them. */
import { attention, HotsetError } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";

/** What the rolling cache is said to do, in lists of frames and with nothing clever. */
class PlainCache {
  readonly slots: { frame: number; position: number }[] = [];
  queue: number[] = [];
  frames = 0;
  position = 0;
  left = 0;
  target = 0;
  kind = "";

  readonly size: number;
  readonly sinks: number;
  readonly steps: number;
  readonly below: number | null;
  readonly reset: number | null;

  constructor(size: number, sinks: number, steps: number, below: number | null, reset: number | null) {
    this.size = size;
    this.sinks = sinks;
    this.steps = steps;
    this.below = below;
    this.reset = reset;
  }

  wants(): boolean {
    return this.left === 0 && this.below !== null && this.sinks > 0 && this.slots.length === this.size;
  }

  pass(similarity: number[] | undefined) {
    let evicted: number | undefined;
    if (this.left === 0) {
      this.left = this.steps;
      if (this.reset !== null && this.position >= this.reset) this.position = this.size - 1;
      const content = { frame: this.frames, position: this.position };
      if (this.slots.length < this.size) {
        this.kind = "fill";
        this.target = this.slots.push(content) - 1;
        if (this.target >= this.sinks) this.queue = [...this.queue, this.target];
      } else {
        const worst = similarity ? Math.min(...similarity) : Number.POSITIVE_INFINITY;
        this.kind = this.below !== null && worst < this.below ? "refresh" : "roll";
        this.target = this.kind === "refresh" ? (similarity as number[]).indexOf(worst) : (this.queue[0] as number);
        evicted = this.slots[this.target]?.frame;
        this.slots[this.target] = content;
      }
      this.frames++;
      this.position++;
    }
    this.left--;
    if (this.left === 0 && this.kind === "roll") this.queue = [...this.queue.slice(1), this.target];
    const content = this.slots[this.target] as { frame: number; position: number };
    return {
      frame: content.frame,
      pass: this.steps - this.left - 1,
      last: this.left === 0,
      slot: this.target,
      evicted,
      kind: this.kind,
      position: content.position,
      held: this.slots.length,
    };
  }
}

const bad = (act: () => unknown): void => {
  let error: unknown;
  try {
    act();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(HotsetError);
  expect((error as HotsetError).code).toBe("argument");
};

describe("RollingFrameCache", () => {
  it("does what a plain model does, over random traces, and holds its invariants after every pass", () => {
    const random = new Random("rolling frames");
    let [passes, refreshes, resets, rolls] = [0, 0, 0, 0];
    for (let trace = 0; trace < 2000; trace++) {
      const frames = 1 + random.below(8);
      const sinks = random.below(frames);
      const denoisingSteps = 1 + random.below(4);
      const refreshBelow = random.pick([null, 0.2, 0.2, 0.9]);
      const resetAfter = random.pick([null, frames, frames + 1 + random.below(12), 50]);
      const cache = new attention.RollingFrameCache({ frames, sinks, denoisingSteps, refreshBelow, resetAfter });
      const plain = new PlainCache(frames, sinks, denoisingSteps, refreshBelow, resetAfter);
      let before = 0;
      for (let event = 0; event < 30; event++) {
        const asks = plain.wants();
        const similarity = asks ? Array.from({ length: sinks }, () => Math.min(1, 2 * random.uniform() - 1 + random.uniform())) : undefined;
        const asked = cache.asksSimilarity;
        const [got, wanted] = [cache.pass(similarity), plain.pass(similarity)];
        cache.audit();
        const held = cache.slots().filter(({ state }) => state !== "free");
        const [mine, model] = [
          JSON.stringify([asked, Object.entries(got).sort(), cache.order(), held.map(({ frame, position }) => ({ frame, position }))]),
          JSON.stringify([asks, Object.entries(wanted).sort(), plain.queue, plain.slots]),
        ];
        if (mine !== model) expect(mine, `trace ${trace}, event ${event}`).toBe(model);
        if (got.pass === 0 && got.position < before) resets++;
        if (got.pass === 0) before = got.position;
        rolls += Number(got.kind === "roll" && got.last);
        passes++;
      }
      refreshes += cache.refreshes;
    }
    expect(passes).toBe(60_000);
    expect(Math.min(refreshes, resets, rolls)).toBeGreaterThan(500);
  });

  it("keeps its sinks and evicts the others in order, once their passes are over", () => {
    const cache = new attention.RollingFrameCache({ frames: 4, sinks: 2, denoisingSteps: 2, refreshBelow: null, resetAfter: 5 });
    const all = Array.from({ length: 16 }, () => cache.pass());
    expect(all.map(({ slot }) => slot)).toEqual([0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3, 2, 2, 3, 3]);
    expect(all.map(({ evicted }) => evicted)).toEqual([...new Array(8), 2, undefined, 3, undefined, 4, undefined, 5, undefined]);
    expect(all.filter(({ last }) => last).map(({ position }) => position)).toEqual([0, 1, 2, 3, 4, 3, 4, 3]);
  });

  it("gives the place of the least similar sink to a frame of another scene", () => {
    const cache = new attention.RollingFrameCache({ frames: 5, sinks: 3, denoisingSteps: 3 });
    for (let i = 0; i < 15; i++) cache.pass();
    expect(cache.asksSimilarity).toBe(true);
    expect(cache.pass([0.9, 0.1, 0.15])).toMatchObject({ kind: "refresh", slot: 1, evicted: 1, frame: 5 });
    expect(cache.asksSimilarity).toBe(false);
    expect([cache.pass().slot, cache.pass().last]).toEqual([1, true]);
    expect(cache.order()).toEqual([3, 4]);
    expect(cache.pass([0.9, 1, 0.2])).toMatchObject({ kind: "roll", slot: 3 });
    cache.audit();
  });

  it("refuses what makes no sense, and is then as it was", () => {
    for (const settings of [
      { frames: 0 },
      { frames: 2.5 },
      { frames: 4, sinks: 4 },
      { frames: 4, sinks: -1 },
      { frames: 4, denoisingSteps: 0 },
      { frames: 4, refreshBelow: 1.5 },
      { frames: 4, refreshBelow: Number.NaN },
      { frames: 8, resetAfter: 7 },
    ])
      bad(() => new attention.RollingFrameCache(settings));
    const cache = new attention.RollingFrameCache({ frames: 3, sinks: 2 });
    bad(() => cache.pass([1, 1]));
    for (let i = 0; i < 3; i++) cache.pass();
    const before = JSON.stringify([cache.slots(), cache.order(), cache.asksSimilarity]);
    for (const similarity of [undefined, [], [1], [1, 1, 1], [Number.NaN, 1], [0.5, -2]]) bad(() => cache.pass(similarity));
    expect(JSON.stringify([cache.slots(), cache.order(), cache.asksSimilarity])).toBe(before);
    expect(cache.pass([1, 1])).toMatchObject({ frame: 3, slot: 2, position: 3 });
  });

  it("compares frames by the cosines of their means", () => {
    // [2 heads, 2 tokens, 2 dims]
    const keys = Float32Array.of(1, 0, 3, 0, 0, 2, 0, 4);
    const { key, value } = attention.frameMeans(keys, keys, 2, 2);
    expect([...key]).toEqual([2, 0, 0, 3]);
    const turned = { key: key.map((x) => -2 * x), value };
    expect(attention.frameSimilarity({ key, value }, turned)).toBeCloseTo(0, 12);
    expect(attention.frameSimilarity({ key, value }, { key, value })).toBeCloseTo(1, 12);
    expect(attention.frameSimilarity({ key, value }, { key: new Float32Array(4), value })).toBeCloseTo(0.5, 12);
    bad(() => attention.frameMeans(keys, keys, 3, 2));
    bad(() => attention.frameSimilarity({ key, value }, { key: key.slice(1), value }));
  });
});

describe("BatchSizer", () => {
  it("finds the largest batch that meets the deadline, and follows a machine that slows down", () => {
    const random = new Random("batch size");
    for (let machine = 0; machine < 200; machine++) {
      const [fixed, each] = [5 * random.uniform(), 0.2 + 3 * random.uniform()];
      const denoisingSteps = 1 + random.below(4);
      const sizer = new attention.BatchSizer({ deadline: 60, largest: 32, denoisingSteps });
      for (const slow of [1, 1.7, 0.8]) {
        const time = (batch: number) => slow * (fixed + each * batch);
        for (let step = 0; step < 120; step++) {
          const { batch } = sizer.choose();
          sizer.observe(batch, time(batch) * (1 + 0.002 * (random.uniform() - 0.5)));
        }
        let best = 1;
        while (best < 32 && denoisingSteps * time(best + 1) <= 57) best++;
        const { batch, meets, predicted } = sizer.choose();
        // Noise moves the edge by less than one frame; below it, it stays only where one more is too much in proportion.
        expect(batch).toBeLessThanOrEqual(best + 1);
        if (batch < best - 1) expect((denoisingSteps * time(batch) * (batch + 1)) / batch).toBeGreaterThan(0.99 * 57);
        expect(Math.abs((predicted as number) - denoisingSteps * time(batch))).toBeLessThan(0.05 * (predicted as number));
        expect(meets).toBe((predicted as number) <= 57);
      }
    }
  });

  it("starts with one, and says when even that is too slow", () => {
    const sizer = new attention.BatchSizer({ deadline: 10, largest: 8 });
    expect(sizer.choose()).toEqual({ batch: 1, predicted: undefined, meets: true });
    sizer.observe(1, 30);
    expect(sizer.choose()).toEqual({ batch: 1, predicted: 30, meets: false });
    for (const [batch, time] of [
      [0, 1],
      [9, 1],
      [1.5, 1],
      [1, 0],
      [1, Number.NaN],
      [1, Number.POSITIVE_INFINITY],
    ] as const)
      bad(() => sizer.observe(batch, time));
    expect(sizer.predict(1)).toBe(30);
    for (const settings of [
      { deadline: 0, largest: 4 },
      { deadline: 1, largest: 0 },
      { deadline: 1, largest: 4, margin: 0 },
      { deadline: 1, largest: 4, decay: 1.1 },
      { deadline: 1, largest: 4, denoisingSteps: 0 },
    ])
      bad(() => new attention.BatchSizer(settings));
  });
});

describe("the block scheduler", () => {
  /** Every way to cut, tried. */
  function least(costs: readonly number[], workers: readonly attention.WorkerSpeed[], first = 0): number {
    const [worker, ...others] = workers as [attention.WorkerSpeed, ...attention.WorkerSpeed[]];
    let [best, sum] = [Number.POSITIVE_INFINITY, 0];
    for (let end = first; end <= costs.length; end++) {
      const own = worker.fixed + worker.rate * sum;
      if (others.length || end === costs.length) best = Math.min(best, others.length ? Math.max(own, least(costs, others, end)) : own);
      sum += costs[end] ?? 0;
    }
    return best;
  }

  it("cuts as well as trying every cut", () => {
    const random = new Random("block partition");
    for (let trial = 0; trial < 1500; trial++) {
      const costs = Array.from({ length: random.below(9) }, () => random.pick([0, 1, 1, 4 * random.uniform()]));
      const workers = Array.from({ length: 1 + random.below(4) }, () => ({
        rate: 0.3 + random.uniform(),
        fixed: random.pick([0, 2 * random.uniform()]),
      }));
      const ranges = attention.partitionBlocks(costs, workers);
      expect(ranges[0]?.first).toBe(0);
      expect(ranges.at(-1)?.end).toBe(costs.length);
      for (const [i, { first, end }] of ranges.entries()) {
        expect(end).toBeGreaterThanOrEqual(first);
        if (i > 0) expect(first).toBe(ranges[i - 1]?.end);
      }
      expect(attention.slowest(costs, workers, ranges)).toBeCloseTo(least(costs, workers), 10);
    }
  });

  it("moves blocks away from a worker with other work, and only where that pays", () => {
    const scheduler = new attention.BlockScheduler({ workers: 3, blocks: 30 });
    expect(scheduler.ranges.map(({ first, end }) => end - first)).toEqual([10, 10, 10]);
    const measure = (rates: readonly number[], fixed: readonly number[]) => {
      for (let step = 0; step < 40; step++)
        scheduler.ranges.forEach(({ first, end }, worker) => {
          scheduler.observe(worker, (fixed[worker] as number) + (rates[worker] as number) * (end - first), fixed[worker]);
        });
    };
    measure([1, 1, 1], [0.3, 0, 0.3]);
    expect(scheduler.plan().moved).toBe(0);
    // The first encodes, the last decodes.
    measure([1, 1, 1], [4, 0, 5]);
    const { ranges, moved, predicted } = scheduler.plan();
    expect(ranges.map(({ first, end }) => end - first)).toEqual([9, 13, 8]);
    expect(moved).toBe(3);
    expect(predicted).toBeCloseTo(13, 3);
    expect(scheduler.plan().moved).toBe(0);
    measure([1, 4, 1], [4, 0, 5]);
    expect(scheduler.plan().ranges.map(({ first, end }) => end - first)).toEqual([13, 4, 13]);
  });

  it("refuses what makes no sense, and is then as it was", () => {
    const one = { rate: 1, fixed: 0 };
    bad(() => attention.partitionBlocks([1], []));
    bad(() => attention.partitionBlocks([-1], [one]));
    bad(() => attention.partitionBlocks([1], [{ rate: 0, fixed: 0 }]));
    bad(() => attention.partitionBlocks([1], [{ rate: 1, fixed: Number.NaN }]));
    for (const settings of [
      { workers: 0, blocks: 3 },
      { workers: 2 },
      { workers: 2, blocks: 2, costs: [1] },
      { workers: 2, costs: [0, 0] },
      { workers: 2, blocks: 2, threshold: 1 },
      { workers: 2, blocks: 2, decay: 1 },
    ])
      bad(() => new attention.BlockScheduler(settings));
    const scheduler = new attention.BlockScheduler({ workers: 2, blocks: 4 });
    const before = JSON.stringify([scheduler.ranges, scheduler.speeds()]);
    bad(() => scheduler.observe(2, 1));
    bad(() => scheduler.observe(0, 0));
    bad(() => scheduler.observe(0, 1, 2));
    bad(() => scheduler.observe(0, 1, 1));
    expect(JSON.stringify([scheduler.ranges, scheduler.speeds()])).toBe(before);
  });
});
