/** Class hazard once more: every life of every block in one array, and everything counted anew when it is needed. */
import type { NaivePolicy, NaiveTrace } from "./naive-replay.js";

/** What was seen of one block between two uses. */
interface Life {
  block: number;
  since: number;
  /** Class by uses, and by reply once that is known. */
  uses: number;
  reply: number;
  request: number;
  until?: number;
}

export function hazard(capacity: number, { requests, replies }: NaiveTrace, prefixHits: boolean): NaivePolicy {
  const lives: Life[] = [];
  const life = (block: number): Life | undefined => lives.findLast((one) => one.block === block);
  /** The two simulated caches and the real one, each from its oldest. */
  let byHazard: { block: number; request: number; position: number; moved: number }[] = [];
  const recent: number[] = [];
  const real: number[] = [];
  let [now, due, references, hazardHits, recentHits, leads] = [0, 2048, 0, 0, 0, false];
  let [position, moves] = [0, 0];
  let scores = (_uses: number, _reply: number, age: number): number => 1 / (edges[binFor(age)] as number);
  const starts = requests.map((_, r) => requests.slice(0, r).reduce((sum, blocks) => sum + blocks.length, 0));

  /** Order inside the set: by the turn in which a block came to its list; within one request the deeper is older. */
  const older = (a: (typeof byHazard)[number], b: (typeof byHazard)[number]): number => a.moved - b.moved;
  const least = (): number => {
    const candidates = new Map<string, (typeof byHazard)[number]>();
    for (const entry of [...byHazard].sort(older)) {
      const { uses, reply } = life(entry.block) as Life;
      const key = `${uses},${reply}`;
      if (!candidates.has(key)) candidates.set(key, entry);
    }
    let [found, best, age] = [-1, Number.POSITIVE_INFINITY, 0];
    for (const { block } of candidates.values()) {
      const { uses, reply, since } = life(block) as Life;
      const score = scores(uses, reply, now - since);
      if (score < best || (score === best && now - since > age)) [found, best, age] = [block, score, now - since];
    }
    return found;
  };
  const simulate = (block: number, request: number, depth: number): void => {
    references++;
    position = (starts[request] as number) + depth;
    if (recent.includes(block)) {
      if (!prefixHits) recentHits++;
      recent.splice(recent.indexOf(block), 1);
    } else if (recent.length === capacity) recent.shift();
    recent.push(block);
    if (byHazard.some((entry) => entry.block === block)) {
      if (!prefixHits) hazardHits++;
    } else if (byHazard.length === capacity) {
      const gone = least();
      byHazard = byHazard.filter((entry) => entry.block !== gone);
    }
    byHazard = byHazard.filter((entry) => entry.block !== block);
    now++;
    const before = life(block);
    if (before) before.until = now;
    const uses = lives.filter((one) => one.block === block).length + 1;
    const of = uses === 1 ? 0 : uses === 2 ? 1 : uses <= 4 ? 2 : uses <= 8 ? 3 : 4;
    lives.push({ block, since: now, uses: of, reply: 0, request });
    place(block, request, of);
  };
  /** Before the blocks of this request that lie in the same list and less deep, if the last one put there did. */
  const lastPut = new Map<number, { block: number; position: number }>();
  const place = (block: number, request: number, of: number): void => {
    const sameList = byHazard
      .filter(({ block: other }) => {
        const { uses, reply } = life(other) as Life;
        return uses === of && reply === 0;
      })
      .sort(older);
    const last = lastPut.get(of);
    let moved = ++moves;
    if (last && position > last.position) {
      // The list closed up if the last one was evicted: what was newer than it is next.
      const next = sameList.find((entry) => entry.moved >= (movedOf.get(last.block) as number));
      if (next) {
        const before = sameList[sameList.indexOf(next) - 1];
        moved = before ? (before.moved + next.moved) / 2 : next.moved - 1;
      }
    }
    movedOf.set(block, moved);
    lastPut.set(of, { block, position });
    byHazard.push({ block, request, position, moved });
  };
  const movedOf = new Map<number, number>();

  return {
    begin(request) {
      lastPut.clear();
      if (now >= due) {
        due = now + Math.max(2048, Math.floor(now / 4));
        const index = indexOf(lives, now);
        scores = (uses, reply, age) => index[uses + 5 * reply]?.[binFor(age)] as number;
      }
      if (references >= 2 ** 20) [references, hazardHits, recentHits] = [0, hazardHits / 2, recentHits / 2];
      const lead = hazardHits - recentHits;
      leads = leads ? lead >= 0 : lead > 64 + recentHits / 64;
      if (!prefixHits) return;
      const blocks = requests[request] as number[];
      const leading = (held: (block: number) => boolean): number => {
        const broken = blocks.findIndex((block) => !held(block));
        return broken < 0 ? blocks.length : broken;
      };
      recentHits += leading((block) => recent.includes(block));
      hazardHits += leading((block) => byHazard.some((entry) => entry.block === block));
    },
    end(request) {
      const reply = Math.min(replies[request] as number, 4);
      lastPut.clear();
      if (reply === 0) return;
      for (const entry of [...byHazard].sort(older)) {
        if (life(entry.block)?.reply === 0 && life(entry.block)?.request === request) {
          entry.moved = ++moves;
          movedOf.set(entry.block, entry.moved);
        }
      }
      for (const one of lives) if (one.request === request && one.reply === 0 && one.until === undefined) one.reply = reply;
    },
    hit(block, { request, depth }) {
      simulate(block, request, depth);
      real.splice(real.indexOf(block), 1);
      real.push(block);
    },
    miss(block, { request, depth }, full) {
      simulate(block, request, depth);
      let evict: number | undefined;
      if (full) {
        const held = (other: number): boolean => (leads ? byHazard.some((entry) => entry.block === other) : recent.includes(other));
        evict = real.find((other) => !held(other)) as number;
        real.splice(real.indexOf(evict), 1);
      }
      real.push(block);
      return { enters: true, ...(evict === undefined ? {} : { evict }) };
    },
  };
}

/** Where each bin of ages begins: 1, 1.5 (empty), 2, 3, 4, 6, 8, 12, ... */
const edges = Array.from({ length: 63 }, (_, bin) => 2 ** Math.floor(bin / 2) * (bin % 2 ? 1.5 : 1));
const binFor = (age: number): number => {
  const whole = Math.max(1, age);
  let bin = 61;
  while (bin > 0 && (edges[bin] as number) > whole) bin--;
  return bin;
};

function indexOf(lives: readonly Life[], now: number): number[][] {
  const count = (chosen: readonly Life[], prior: (bin: number) => number): number[] => {
    const ended = chosen.filter(({ until }) => until !== undefined).map(({ since, until }) => binFor((until as number) - since));
    const lasting = chosen.filter(({ until }) => until === undefined).map(({ since }) => binFor(now - since));
    return Array.from({ length: 62 }, (_, bin) => {
      const used = ended.filter((b) => b === bin).length;
      const still = lasting.filter((b) => b === bin).length;
      const beyond = ended.filter((b) => b > bin).length + lasting.filter((b) => b > bin).length;
      return (used + 512 * prior(bin)) / (beyond + used + still / 2 + 512);
    });
  };
  const all = count(lives, () => 1 / 64);
  return Array.from({ length: 25 }, (_, of) => {
    const parent = count(
      lives.filter(({ uses }) => uses === of % 5),
      (bin) => all[bin] as number,
    );
    const shares = count(
      lives.filter(({ uses, reply }) => uses === of % 5 && reply === Math.floor(of / 5)),
      (bin) => parent[bin] as number,
    );
    return shares.map((_, from) => {
      let [left, expected, room, best] = [1, 0, 0, 0];
      for (let bin = from; bin < 62; bin++) {
        const share = shares[bin] as number;
        expected += left * share;
        room += left * ((edges[bin + 1] as number) - (edges[bin] as number)) * (1 - share / 2);
        left *= 1 - share;
        best = Math.max(best, expected / room);
      }
      return best;
    });
  });
}
