import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blockHashes, type KvBlockEvent, KvBlockManager } from "../src/kv-cache/index.js";

/** The manager once more, with prefixes as text and blocks as objects that are searched. LRU. */
class Model {
  readonly cachedOrHeld: { key: string; depth: number; references: number; used: number }[] = [];
  readonly requests = new Map<number, { tokens: number[]; keys: string[]; own: number; stored: number; blocks: number }>();
  now = 0;
  readonly removed: string[] = [];
  readonly blocks: number;
  readonly size: number;

  constructor(blocks: number, size: number) {
    this.blocks = blocks;
    this.size = size;
  }

  keysOf(tokens: number[], salt: string): string[] {
    return Array.from({ length: Math.floor(tokens.length / this.size) }, (_, i) => `${salt}|${tokens.slice(0, (i + 1) * this.size)}`);
  }
  find = (key: string) => this.cachedOrHeld.find((entry) => entry.key === key);
  get free(): number {
    const own = [...this.requests.values()].reduce((sum, { own: n }) => sum + n, 0);
    return this.blocks - own - this.cachedOrHeld.length;
  }
  get available(): number {
    return this.free + this.cachedOrHeld.filter(({ references }) => references === 0).length;
  }
  /** Leaves that nobody uses, the one used longest ago first. */
  evict(): void {
    const leaves = this.cachedOrHeld.filter(
      ({ key, references, depth }) =>
        references === 0 && !this.cachedOrHeld.some((other) => other.depth === depth + 1 && other.key.startsWith(`${key},`)),
    );
    leaves.sort((a, b) => a.used - b.used);
    this.cachedOrHeld.splice(this.cachedOrHeld.indexOf(leaves[0] as (typeof leaves)[number]), 1);
    this.removed.push((leaves[0] as (typeof leaves)[number]).key);
  }
  take(count: number): void {
    while (this.free < count) this.evict();
  }
  acquire(id: number, tokens: number[], salt: string): number | undefined {
    const keys = this.keysOf(tokens, salt);
    let found = 0;
    while (found < Math.floor(Math.max(0, tokens.length - 1) / this.size) && this.find(keys[found] as string)) found++;
    const needed = Math.ceil(tokens.length / this.size) - found;
    const hit = keys.slice(0, found).map((key) => this.find(key) as { references: number });
    if (needed > this.available - hit.filter(({ references }) => references === 0).length) return undefined;
    for (const entry of hit) entry.references++;
    this.take(needed);
    this.requests.set(id, { tokens: [...tokens], keys, own: needed, stored: found, blocks: found + needed });
    return found * this.size;
  }
  append(id: number, tokens: number[], salt: string): boolean {
    const request = this.requests.get(id) as { tokens: number[]; keys: string[]; own: number; blocks: number };
    const total = Math.ceil((request.tokens.length + tokens.length) / this.size);
    if (total - request.blocks > this.available) return false;
    this.take(total - request.blocks);
    request.own += total - request.blocks;
    request.blocks = total;
    request.tokens.push(...tokens);
    request.keys = this.keysOf(request.tokens, salt);
    return true;
  }
  computed(id: number, count: number): void {
    const request = this.requests.get(id) as { keys: string[]; own: number; stored: number };
    for (; request.stored < Math.floor(count / this.size); request.stored++) {
      const key = request.keys[request.stored] as string;
      const equal = this.find(key);
      if (equal) equal.references++;
      else {
        this.cachedOrHeld.push({ key, depth: request.stored, references: 1, used: 0 });
        request.own--;
      }
    }
  }
  release(id: number): void {
    const { keys, stored } = this.requests.get(id) as { keys: string[]; stored: number };
    this.requests.delete(id);
    for (const key of keys.slice(0, stored).reverse()) {
      const entry = this.find(key) as { references: number; used: number };
      if (--entry.references === 0) entry.used = ++this.now;
    }
  }
  touch(keys: string[]): number {
    let found = 0;
    while (found < keys.length && this.find(keys[found] as string)) found++;
    for (const key of keys.slice(0, found).reverse()) {
      const entry = this.find(key) as { references: number; used: number };
      if (entry.references === 0) entry.used = ++this.now;
    }
    return found;
  }
}

const action = fc.record({
  kind: fc.constantFrom("acquire", "acquire", "append", "computed", "release", "touch", "lookup"),
  // Few different tokens and starts, so that prefixes meet.
  tokens: fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: 14 }),
  salt: fc.constantFrom("", "", "b"),
  which: fc.nat(5),
  reply: fc.nat(3),
});

describe("KvBlockManager", () => {
  for (const policy of ["lru", "hazard"] as const)
    it(`${policy}: does what a naive model does, and keeps its invariants`, () => {
      fc.assert(
        fc.property(
          fc.array(action, { minLength: 1, maxLength: 60 }),
          fc.integer({ min: 1, max: 9 }),
          fc.integer({ min: 1, max: 3 }),
          (actions, blocks, size) => {
            const events: KvBlockEvent[] = [];
            const manager = new KvBlockManager({ blocks, blockSize: size, policy, onEvent: (event) => events.push(event) });
            const model = new Model(blocks, size);
            const open: { id: number; salt: string; tokens: number[] }[] = [];
            const exact = policy === "lru";
            for (const { kind, tokens, salt, which, reply } of actions) {
              const extra = salt ? [salt] : [];
              const request = open[which % Math.max(1, open.length)];
              const before = JSON.stringify([manager.available, manager.cached, events.length]);
              if (kind === "acquire") {
                // Under hazard other blocks may be cached: only the model of LRU knows which.
                const refused = manager.counters.refused;
                let got: ReturnType<KvBlockManager["acquire"]> | undefined;
                try {
                  got = manager.acquire(tokens, extra);
                } catch (error) {
                  expect((error as { code: string }).code).toBe("memory");
                  expect(manager.counters.refused).toBe(refused + 1);
                  expect(JSON.stringify([manager.available, manager.cached, events.length])).toBe(before);
                }
                if (exact) expect(got?.cachedTokens).toBe(model.acquire(got?.id ?? -1, tokens, salt));
                if (got) {
                  expect(got.cachedTokens).toBeLessThanOrEqual(Math.max(0, tokens.length - 1));
                  open.push({ id: got.id, salt, tokens: [...tokens] });
                }
              } else if (kind === "touch") {
                const found = manager.touch(blockHashes(tokens, size, extra));
                if (exact) expect(found).toBe(model.touch(model.keysOf(tokens, salt)));
              } else if (kind === "lookup") {
                manager.lookup(tokens, extra);
                expect(JSON.stringify([manager.available, manager.cached, events.length])).toBe(before);
              } else if (!request) continue;
              else if (kind === "append") {
                let fits = true;
                try {
                  manager.append(request.id, tokens);
                  request.tokens.push(...tokens);
                } catch (error) {
                  expect((error as { code: string }).code).toBe("memory");
                  fits = false;
                }
                if (exact) expect(fits).toBe(model.append(request.id, tokens, request.salt));
              } else if (kind === "computed") {
                const count = Math.min(request.tokens.length, which * 4);
                manager.computed(request.id, count);
                if (exact) model.computed(request.id, count);
              } else {
                manager.release(request.id, reply);
                if (exact) model.release(request.id);
                open.splice(open.indexOf(request), 1);
              }
              manager.audit();
              if (exact) {
                expect(manager.available).toBe(model.available);
                expect(events.filter((event) => event.kind === "removed").map(({ hash }) => String(hash))).toEqual(
                  model.removed.map((key) => String(hashOfKey(key, size))),
                );
              }
            }
            // Children leave before parents, by the events alone.
            const stored = new Map<string, string | undefined>();
            for (const event of events) {
              if (event.kind === "stored") stored.set(String(event.hash), event.parent && String(event.parent));
              else {
                stored.delete(String(event.hash));
                expect([...stored.values()]).not.toContain(String(event.hash));
              }
            }
          },
        ),
        { numRuns: 1500, seed: 4 },
      );
    });

  const hashOfKey = (key: string, size: number): Uint32Array => {
    const [salt, list] = key.split("|") as [string, string];
    const all = blockHashes(list.split(",").map(Number), size, salt ? [salt] : []);
    return all.slice(-4);
  };

  it("the last token is always left to compute", () => {
    const manager = new KvBlockManager({ blocks: 8, blockSize: 4 });
    const tokens = [1, 2, 3, 4, 5, 6, 7, 8];
    const first = manager.acquire(tokens);
    manager.computed(first.id, 8);
    manager.release(first.id);
    expect(manager.lookup(tokens)).toBe(4);
    expect(manager.lookup([...tokens, 9])).toBe(8);
    expect(manager.acquire(tokens).cachedTokens).toBe(4);
  });

  it("what is not computed yet is found by nobody", () => {
    const manager = new KvBlockManager({ blocks: 8, blockSize: 2 });
    const first = manager.acquire([1, 2, 3, 4, 5]);
    expect(manager.acquire([1, 2, 3, 4, 6]).cachedTokens).toBe(0);
    manager.computed(first.id, 3);
    expect(manager.lookup([1, 2, 3, 4, 7])).toBe(2);
  });

  it("other extra keys are another prefix, and no key runs into the next", () => {
    const hash = (extra: string[]) => String(blockHashes([1, 2], 2, extra));
    expect(new Set([hash([]), hash(["a"]), hash(["b"]), hash(["ab", "c"]), hash(["a", "bc"]), hash(["abc"])]).size).toBe(6);
    const seen = new Set<string>();
    for (let a = 0; a < 60; a++) for (let b = 0; b < 60; b++) seen.add(String(blockHashes([a, b], 2)));
    expect(seen.size).toBe(3600);
  });

  it("refuses a request longer than the pool, a full pool, and ids that have ended", () => {
    const manager = new KvBlockManager({ blocks: 4, blockSize: 2 });
    expect(() => manager.acquire([1, 2, 3, 4, 5, 6, 7, 8, 9])).toThrow(
      /KvBlockManager.acquire: expected a request of at most 4 blocks, which is the pool but received one of 5/,
    );
    const held = manager.acquire([1, 2, 3, 4, 5, 6]);
    expect(() => manager.acquire([9, 9, 9])).toThrow(
      /expected 2 free or cached blocks but received 1\. Try again when a request has ended/,
    );
    expect(() => manager.append(held.id, [1, 1, 1])).toThrow(/of at most 4 blocks, which is the pool but received one of 5/);
    expect(() => manager.computed(held.id, 7)).toThrow(/expected at most the 6 tokens of the request but received 7/);
    manager.release(held.id);
    for (const call of [() => manager.release(held.id), () => manager.append(99, [1]), () => manager.computed(0, 0)])
      expect(call).toThrow(/expected the id of a request that has not ended/);
    for (const settings of [{ blocks: 0 }, { blocks: 1.5 }, { blocks: 4, blockSize: 0 }, { blocks: 4, policy: "fifo" as "lru" }])
      expect(() => new KvBlockManager(settings)).toThrow(/KvBlockManager.new: expected/);
    manager.audit();
  });

  it("hazard keeps what comes back where LRU loses it to visitors", () => {
    const hits = (policy: "lru" | "hazard"): number => {
      const manager = new KvBlockManager({ blocks: 64, blockSize: 4, policy });
      const serve = (first: number, reply: number): void => {
        const request = manager.acquire(Array.from({ length: 30 }, (_, i) => first + i));
        manager.computed(request.id, 30);
        manager.release(request.id, reply);
      };
      for (let n = 0; n < 3000; n++) serve(n % 5 ? 10_000 + n * 40 : 100 * ((n / 5) % 4), n % 5 ? 1 : 2);
      manager.audit();
      return manager.counters.cachedTokens;
    };
    expect(hits("hazard")).toBeGreaterThan(1.5 * hits("lru") + 1000);
  });

  it("clear forgets what nobody uses", () => {
    const manager = new KvBlockManager({ blocks: 6, blockSize: 1 });
    const a = manager.acquire([1, 2, 3]);
    manager.computed(a.id, 3);
    const b = manager.acquire([1, 2, 4]);
    manager.release(a.id);
    expect(manager.clear()).toBe(1);
    manager.release(b.id);
    expect([manager.clear(), manager.available]).toEqual([2, 6]);
    manager.audit();
  });
});
