import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { HotsetError, moe } from "@hotset/core";
import { Random } from "@hotset/core/testing/cases";
import fc from "fast-check";
import { describe, expect, it } from "vitest";

/** Events of one layer: sets of experts, each of `size` or fewer. */
function randomEvents(random: Random, experts: number, size: number, count: number): number[][] {
  return Array.from({ length: count }, () => {
    const left = Array.from({ length: experts }, (_, e) => e);
    return Array.from({ length: 1 + random.below(size) }, () => left.splice(random.below(Math.ceil(left.length * 0.7)), 1)[0] as number);
  });
}

const nextUseOf = (events: readonly number[][], from: number, expert: number): number => {
  for (let t = from + 1; t < events.length; t++) if (events[t]?.includes(expert)) return t;
  return moe.never;
};

/** Hits by definition: everything is worked out from the whole history at every event, with sets and sorting. */
function bruteHits(events: readonly number[][], slots: number, policy: moe.RetentionPolicy, decay: number): number {
  let kept = new Set<number>();
  let hits = 0;
  events.forEach((event, now) => {
    hits += event.filter((expert) => kept.has(expert)).length;
    const past = events.slice(0, now + 1);
    const uses = (expert: number): number[] => past.flatMap((set, t) => (set.includes(expert) ? [t] : []));
    const worth = (expert: number): number => {
      const used = uses(expert);
      if (policy === "lru") return used.at(-1) as number;
      if (policy === "lfu") return used.length;
      if (policy === "lfru") return used.length / (1 + now - (used.at(-1) as number));
      if (policy === "ema") return used.reduce((sum, t) => sum + decay ** (now - t), 0);
      return -nextUseOf(events, now, expert);
    };
    const best = (experts: Iterable<number>): number[] =>
      [...experts]
        .map((expert) => [worth(expert), expert] as const)
        .sort(([x, a], [y, b]) => y - x || a - b)
        .map(([, expert]) => expert);
    if (policy === "belady-bypass") kept = new Set(best(new Set([...kept, ...event])).slice(0, slots));
    else {
      const others = best([...kept].filter((expert) => !event.includes(expert)));
      kept = new Set([...event, ...others.slice(0, slots - event.length)]);
    }
  });
  return hits;
}

/** The most hits any choice of what to keep can have: every choice is tried. `forced`: what is used is kept until the next event. */
function bestHits(events: readonly number[][], slots: number, forced: boolean): number {
  let states = new Map<string, number>([["", 0]]);
  for (const event of events) {
    const next = new Map<string, number>();
    for (const [key, hits] of states) {
      const kept = key === "" ? [] : key.split(",").map(Number);
      const now = hits + event.filter((expert) => kept.includes(expert)).length;
      const must = forced ? event : [];
      const may = [...new Set([...kept, ...event])].filter((expert) => !must.includes(expert));
      for (let choice = 0; choice < 2 ** may.length; choice++) {
        const set = [...must, ...may.filter((_, i) => choice & (1 << i))];
        if (set.length > slots) continue;
        const to = set.sort((a, b) => a - b).join(",");
        next.set(to, Math.max(next.get(to) ?? 0, now));
      }
    }
    states = next;
  }
  return Math.max(...states.values());
}

function cacheHits(events: readonly number[][], experts: number, slots: number, policy: moe.RetentionPolicy, decay: number): number {
  const cache = new moe.ExpertCache({ layers: 1, experts, slots, policy, decay, expertBytes: 3 });
  let hits = 0;
  events.forEach((event, now) => {
    const before = Int32Array.from(cache.expertSlot(0));
    const {
      slots: given,
      load,
      ...counted
    } = cache.event(
      0,
      event,
      event.map((expert) => nextUseOf(events, now, expert)),
    );
    hits += counted.hits;
    event.forEach((expert, i) => {
      expect(load[i]).toBe((before[expert] as number) < 0 ? 1 : 0);
      expect(given[i]).toBe(cache.expertSlot(0)[expert]);
      if (policy !== "belady-bypass") expect(given[i]).toBeGreaterThanOrEqual(0);
      // What is there already is not moved.
      if ((before[expert] as number) >= 0 && (given[i] as number) >= 0) expect(given[i]).toBe(before[expert]);
    });
    const there = cache.slotExpert(0);
    for (let slot = 0; slot < slots; slot++)
      if ((there[slot] as number) >= 0) expect(cache.expertSlot(0)[there[slot] as number]).toBe(slot);
    expect(cache.expertSlot(0).filter((slot) => slot >= 0).length).toBe(there.filter((expert) => expert >= 0).length);
  });
  const { hits: total, misses, bytes, evictions, bypassed, events: count } = cache.counters;
  expect([total, bytes, count]).toEqual([hits, 3 * misses, events.length]);
  expect(total + misses).toBe(events.flat().length);
  expect(misses - evictions - bypassed).toBe(cache.slotExpert(0).filter((expert) => expert >= 0).length);
  return hits;
}

describe("ExpertCache", () => {
  it("agrees with hits by definition on random events, for every policy", () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom(...moe.retentionPolicies), fc.constantFrom(0.5, 0.9, 0.98, 1), (seed, policy, decay) => {
        const random = new Random(`events ${seed}`);
        const experts = 1 + random.below(12);
        const slots = 1 + random.below(experts);
        const events = randomEvents(random, experts, slots, random.below(50));
        expect(cacheHits(events, experts, slots, policy, decay)).toBe(bruteHits(events, slots, policy, decay));
      }),
      { numRuns: 1000, seed: 20261121 },
    );
  });

  it("finds with Belady's rule as many hits as the best of all choices, forced and with bypass", () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const random = new Random(`best ${seed}`);
        const experts = 2 + random.below(4);
        const slots = 1 + random.below(Math.min(3, experts));
        const events = randomEvents(random, experts, Math.min(2, slots), 9);
        expect(cacheHits(events, experts, slots, "belady", 1)).toBe(bestHits(events, slots, true));
        expect(cacheHits(events, experts, slots, "belady-bypass", 1)).toBe(bestHits(events, slots, false));
      }),
      { numRuns: 300, seed: 7 },
    );
  });

  it("keeps a use's weight over so many tokens that its counting must be rescaled", () => {
    const random = new Random("rescale");
    const events = randomEvents(random, 6, 2, 1500);
    expect(cacheHits(events, 6, 3, "ema", 0.5)).toBe(bruteHits(events, 3, "ema", 0.5));
  });

  it("keeps layers apart", () => {
    const cache = new moe.ExpertCache({ layers: 2, experts: 4, slots: 1, policy: "lru" });
    expect(cache.event(0, [3]).misses).toBe(1);
    expect(cache.event(1, [3]).misses).toBe(1);
    expect(cache.event(0, [3]).hits).toBe(1);
    expect([...cache.expertSlot(0)]).toEqual([-1, -1, -1, 0]);
  });

  it("refuses what it cannot do, with nothing changed", () => {
    const cache = new moe.ExpertCache({ layers: 2, experts: 8, slots: 3, policy: "lru" });
    cache.event(0, [1, 2]);
    const before = [cache.counters, [...cache.expertSlot(0)], [...cache.slotExpert(0)]];
    const refused = (work: () => unknown, message: RegExp) => {
      expect(work).toThrow(HotsetError);
      expect(work).toThrow(message);
    };
    refused(() => cache.event(0, [1, 2, 3, 4]), /at least 4 slots a layer, for the experts of one event but received 3/);
    refused(() => cache.event(0, [3, 8]), /experts below 8 but received 8/);
    refused(() => cache.event(0, [3, -1]), /experts below 8/);
    refused(() => cache.event(0, [3, 3]), /distinct experts but received 3 twice/);
    refused(() => cache.event(2, [3]), /a layer below 2/);
    expect([cache.counters, [...cache.expertSlot(0)], [...cache.slotExpert(0)]]).toEqual(before);
    expect(cache.event(0, [3]).misses).toBe(1);
    const make = (settings: object) => () => new moe.ExpertCache({ layers: 1, experts: 8, slots: 3, policy: "lru", ...settings });
    refused(make({ slots: 9 }), /slots from 1 to 8 but received 9/);
    refused(make({ slots: 0 }), /slots/);
    refused(make({ layers: 1.5 }), /layers/);
    refused(make({ policy: "best" }), /a policy of lru, lfu/);
    refused(make({ decay: 0 }), /decay/);
    refused(make({ expertBytes: -1 }), /expertBytes/);
    refused(() => make({ policy: "belady" })().event(0, [1]), /the next use of each of 1 experts but received none/);
  });
});

describe("a replay", () => {
  const trace = moe.syntheticMoeTrace({ seed: "replay", layers: 3, experts: 16, topK: 2, sequences: 5, length: 60 });
  const settings = { expertBytes: 1e6, bandwidth: 10 };

  it("adds up what the layers do alone", () => {
    for (const policy of moe.retentionPolicies) {
      const events = (layer: number): number[][] =>
        Array.from({ length: trace.tokens }, (_, t) => [...trace.ids.subarray((t * 3 + layer) * 2, (t * 3 + layer + 1) * 2)]);
      const hits = [0, 1, 2].reduce((sum, layer) => sum + bruteHits(events(layer), 5, policy, 0.98), 0);
      const result = moe.replayMoeTrace(trace, { ...settings, policy, capacity: 5 });
      expect([result.hits, result.references]).toEqual([hits, 1800]);
      expect(result.hitRatio).toBe(hits / 1800);
      expect(result.bytesPerToken).toBeCloseTo(((1800 - hits) * 1e6) / 300, 6);
      // Megabytes over 10 GB/s: a tenth of a millisecond each.
      expect(result.stallMsPerToken).toBeCloseTo((1800 - hits) / 300 / 10, 9);
    }
  });

  it("is better with Belady than without, best with bypass, and only has first misses where everything fits", () => {
    const ratio = (policy: moe.RetentionPolicy, capacity: number) => moe.replayMoeTrace(trace, { ...settings, policy, capacity }).hitRatio;
    for (const policy of ["lru", "lfu", "lfru", "ema"] as const) expect(ratio(policy, 5)).toBeLessThan(ratio("belady", 5));
    expect(ratio("belady", 5)).toBeLessThan(ratio("belady-bypass", 5));
    const first = new Set(Array.from(trace.ids, (id, i) => (Math.floor(i / 2) % 3) * 16 + id)).size;
    for (const policy of moe.retentionPolicies) expect(ratio(policy, 16)).toBe(1 - first / 1800);
  });

  it("refuses slots below what a token needs", () => {
    expect(() => moe.replayMoeTrace(trace, { ...settings, policy: "lru", capacity: 1 })).toThrow(
      /replay: expected a capacity of at least 2 slots, the experts that a token uses in a layer but received 1/,
    );
    expect(() => moe.replayMoeTrace(trace, { ...settings, policy: "lru", capacity: 2, bandwidth: 0 })).toThrow(/bandwidth/);
  });

  it("has an answer for an empty trace", () => {
    const empty = { ...trace, tokens: 0, ids: new Uint8Array(0), sequences: [] };
    expect(moe.replayMoeTrace(empty, { ...settings, policy: "belady", capacity: 2 })).toMatchObject({
      hits: 0,
      hitRatio: 0,
      bytesPerToken: 0,
    });
  });

  const shared = fileURLToPath(new URL("../../../../shared/data/moe/gpt-oss-20b.moetrc.gz", import.meta.url));
  it.skipIf(!existsSync(shared))("has the known hit ratios on gpt-oss-20b, 8 of 32 slots (needs ../shared/data)", async () => {
    const real = await moe.openMoeTrace(readFileSync(shared));
    const nextUses = moe.nextUses(real);
    const ratio = (policy: moe.RetentionPolicy) =>
      moe.replayMoeTrace(real, { ...settings, policy, capacity: 8, nextUses }).hitRatio.toFixed(3);
    expect((["lru", "ema", "belady", "belady-bypass"] as const).map(ratio)).toEqual(["0.658", "0.691", "0.775", "0.811"]);
  });
});
