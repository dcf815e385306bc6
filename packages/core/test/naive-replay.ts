import { hazard } from "./naive-hazard.js";

/** The replay once more, as slow and as plain as can be: arrays that are searched, nothing shared with the library. */
export interface NaiveTrace {
  /** Blocks of each request. */
  requests: number[][];
  /** How each reply ended; 0 is unknown. */
  replies: number[];
}

/** One step at a time: `hit`, or `miss` with the room there is. Returns the block that is evicted, if any. */
export interface NaivePolicy {
  begin?(request: number): void;
  end?(request: number): void;
  hit(block: number, use: Use): void;
  /** Decides what leaves when `full`, and whether the block enters. */
  miss(block: number, use: Use, full: boolean): { evict?: number; enters: boolean };
}
export interface Use {
  request: number;
  depth: number;
  /** When the block is used next; only oracles look. */
  next: number;
}

export function naiveReplay(trace: NaiveTrace, name: string, capacity: number, semantics: string): number {
  const uses = trace.requests.flatMap((blocks, request) => {
    const of = blocks.map((block, depth) => ({ block, request, depth }));
    return semantics === "req" ? of.reverse() : of;
  });
  const policy = naivePolicy(name, capacity, trace, semantics);
  const resident: number[] = [];
  let hits = 0;
  let unbroken = true;
  for (const [i, { block, request, depth }] of uses.entries()) {
    if (i === 0 || uses[i - 1]?.request !== request) {
      for (let r = i === 0 ? 0 : (uses[i - 1]?.request as number); r < request; r++) policy.end?.(r);
      for (let r = i === 0 ? 0 : (uses[i - 1]?.request as number) + 1; r <= request; r++) policy.begin?.(r);
      unbroken = true;
      if (semantics === "req") {
        const blocks = trace.requests[request] as number[];
        const broken = blocks.findIndex((b) => !resident.includes(b));
        hits += broken < 0 ? blocks.length : broken;
      }
    }
    const later = uses.findIndex((use, j) => j > i && use.block === block);
    const next = later < 0 ? Number.POSITIVE_INFINITY : semantics === "req" ? (uses[later]?.request as number) : later;
    const use = { request, depth, next };
    if (resident.includes(block)) {
      if (semantics === "flat" || (semantics === "prefix" && unbroken)) hits++;
      policy.hit(block, use);
      continue;
    }
    unbroken = false;
    const { evict, enters } = policy.miss(block, use, resident.length === capacity);
    if (evict !== undefined) resident.splice(resident.indexOf(evict), 1);
    if (enters) resident.push(block);
    if (resident.length > capacity) throw new Error("the naive cache is over its capacity");
  }
  return hits;
}

function naivePolicy(name: string, capacity: number, trace: NaiveTrace, semantics: string): NaivePolicy {
  if (name === "s3fifo") return s3fifo(capacity);
  if (name === "arc") return arc(capacity);
  if (name === "sieve") return sieve();
  if (name === "belady") return belady(false);
  if (name === "belady-bypass") return belady(true);
  if (name === "hazard") return hazard(capacity, trace, semantics !== "flat");
  return ranked(name);
}

/** Policies that evict the least of what they note about each block. */
function ranked(name: string): NaivePolicy {
  const notes: { block: number; entered: number; used: number; count: number; priority: number }[] = [];
  let [now, inflation] = [0, 0];
  const rank: Record<string, (n: (typeof notes)[number]) => [number, number]> = {
    lru: (n) => [n.used, 0],
    fifo: (n) => [n.entered, 0],
    lfu: (n) => [n.count, n.used],
    gdsf: (n) => [n.priority, n.used],
  };
  const of = rank[name] as (n: (typeof notes)[number]) => [number, number];
  return {
    hit(block) {
      const note = notes.find((n) => n.block === block) as (typeof notes)[number];
      note.used = ++now;
      note.count++;
      note.priority = inflation + note.count;
    },
    miss(block, _use, full) {
      let evict: number | undefined;
      if (full) {
        notes.sort((a, b) => of(a)[0] - of(b)[0] || of(a)[1] - of(b)[1]);
        const gone = notes.shift() as (typeof notes)[number];
        evict = gone.block;
        inflation = gone.priority;
      }
      notes.push({ block, entered: ++now, used: now, count: 1, priority: inflation + 1 });
      return { enters: true, ...(evict === undefined ? {} : { evict }) };
    },
  };
}

function sieve(): NaivePolicy {
  /** From the newest to the oldest. */
  const queue: { block: number; visited: boolean }[] = [];
  let hand: { block: number; visited: boolean } | undefined;
  return {
    hit(block) {
      (queue.find((entry) => entry.block === block) as { visited: boolean }).visited = true;
    },
    miss(block, _use, full) {
      let evict: number | undefined;
      if (full) {
        let at = hand ? queue.indexOf(hand) : queue.length - 1;
        while (queue[at]?.visited) {
          (queue[at] as { visited: boolean }).visited = false;
          at = at === 0 ? queue.length - 1 : at - 1;
        }
        evict = queue[at]?.block as number;
        hand = at === 0 ? undefined : queue[at - 1];
        queue.splice(at, 1);
      }
      queue.unshift({ block, visited: false });
      return { enters: true, ...(evict === undefined ? {} : { evict }) };
    },
  };
}

function s3fifo(capacity: number): NaivePolicy {
  const share = Math.max(1, Math.floor(0.1 * capacity));
  const ghosts = Math.floor(0.9 * capacity);
  const small: number[] = [];
  const main: number[] = [];
  const ghost: number[] = [];
  const frequency = new Map<number, number>();
  return {
    hit: (block) => void frequency.set(block, (frequency.get(block) as number) + 1),
    miss(block, _use, full) {
      const remembered = ghost.indexOf(block);
      if (remembered >= 0) ghost.splice(remembered, 1);
      let evict: number | undefined;
      while (full && evict === undefined) {
        if (main.length > capacity - share || small.length === 0) {
          const oldest = main.shift() as number;
          const f = frequency.get(oldest) as number;
          if (f >= 1) {
            frequency.set(oldest, Math.min(f, 3) - 1);
            main.push(oldest);
          } else evict = oldest;
        } else {
          const oldest = small.shift() as number;
          if ((frequency.get(oldest) as number) >= 2) {
            frequency.set(oldest, 0);
            main.push(oldest);
          } else {
            evict = oldest;
            ghost.push(oldest);
            while (ghost.length > ghosts) ghost.shift();
          }
        }
      }
      frequency.set(block, 0);
      (remembered >= 0 ? main : small).push(block);
      return { enters: true, ...(evict === undefined ? {} : { evict }) };
    },
  };
}

/** As the paper's figure 4, line by line: T1, T2, B1 and B2 from least to most recently used. */
function arc(c: number): NaivePolicy {
  const [T1, T2, B1, B2]: [number[], number[], number[], number[]] = [[], [], [], []];
  let p = 0;
  const take = (list: number[], block: number): boolean => list.includes(block) && list.splice(list.indexOf(block), 1).length === 1;
  const replace = (inB2: boolean): number => {
    if (T1.length >= 1 && ((inB2 && T1.length === p) || T1.length > p)) {
      B1.push(T1[0] as number);
      return T1.shift() as number;
    }
    B2.push(T2[0] as number);
    return T2.shift() as number;
  };
  return {
    hit(block) {
      if (!take(T1, block)) take(T2, block);
      T2.push(block);
    },
    miss(block, _use, full) {
      let evict: number | undefined;
      if (B1.includes(block)) {
        p = Math.min(c, p + Math.max(1, B2.length / B1.length));
        if (full) evict = replace(false);
        take(B1, block);
        T2.push(block);
      } else if (B2.includes(block)) {
        p = Math.max(0, p - Math.max(1, B1.length / B2.length));
        if (full) evict = replace(true);
        take(B2, block);
        T2.push(block);
      } else {
        if (T1.length + B1.length === c) {
          if (T1.length < c) {
            B1.shift();
            evict = replace(false);
          } else evict = T1.shift() as number;
        } else if (T1.length + T2.length + B1.length + B2.length >= c) {
          if (T1.length + T2.length + B1.length + B2.length === 2 * c) B2.shift();
          evict = replace(false);
        }
        T1.push(block);
      }
      return { enters: true, ...(evict === undefined ? {} : { evict }) };
    },
  };
}

function belady(bypass: boolean): NaivePolicy {
  let held: { block: number; next: number; depth: number }[] = [];
  const note = (block: number, { next, depth }: Use) => ({ block, next, depth });
  return {
    hit(block, use) {
      held = [...held.filter((other) => other.block !== block), note(block, use)];
    },
    miss(block, use, full) {
      const all = bypass ? [...held, note(block, use)] : [...held];
      if (!full) {
        held.push(note(block, use));
        return { enters: true };
      }
      all.sort((a, b) => (a.next === b.next ? b.depth - a.depth || b.block - a.block : a.next < b.next ? 1 : -1));
      const { block: evict } = all[0] as { block: number };
      if (evict === block) return { enters: false };
      held = [...held.filter((other) => other.block !== evict), note(block, use)];
      return { evict, enters: true };
    },
  };
}
