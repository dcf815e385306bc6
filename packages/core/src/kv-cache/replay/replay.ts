import { HotsetError } from "../../errors.js";
import { Arc } from "../policies/arc.js";
import { Belady } from "../policies/belady.js";
import { Fifo } from "../policies/fifo.js";
import { Gdsf } from "../policies/gdsf.js";
import { Hazard } from "../policies/hazard.js";
import { Lfu } from "../policies/lfu.js";
import { Lru } from "../policies/lru.js";
import type { EvictionPolicy, PolicySetting, RequestContext } from "../policies/policy.js";
import { S3Fifo } from "../policies/s3fifo.js";
import { Sieve } from "../policies/sieve.js";
import { LeafSafe } from "./leaf-safe.js";
import type { KvTrace } from "./trace.js";

export type ReplaySemantics = "flat" | "prefix" | "req";

export const replayPolicies = ["lru", "fifo", "lfu", "sieve", "s3fifo", "arc", "gdsf", "hazard", "belady", "belady-bypass"] as const;
export type ReplayPolicy = (typeof replayPolicies)[number];

export interface ReplaySettings {
  readonly policy: ReplayPolicy;
  /** Blocks the cache holds, at least 1. */
  readonly capacity: number;
  /** What counts as a hit; default `flat`. */
  readonly semantics?: ReplaySemantics;
  /** The production form: children leave before parents, and blocks of the running request stay. Default false. */
  readonly leafSafe?: boolean;
  /** Whether policies see how replies ended, where the trace says so. Default true. */
  readonly hints?: boolean;
}

export interface ReplayResult {
  readonly policy: ReplayPolicy;
  readonly capacity: number;
  readonly hits: number;
  readonly references: number;
}

/**
 * Replays a trace through one cache of blocks of one size, from cold: what is missed is inserted.
 *
 * `flat`: an access hits if its block is resident then. `prefix`: the same simulation, but an access counts only if
 * every earlier block of its request hit. `req`: on arrival the longest resident prefix is counted, and then all blocks
 * of the request are used from the last to the first. With `leafSafe` a request's blocks beyond the capacity are not
 * stored, and all are used from the last to the first.
 *
 * Throws HotsetError for a capacity that is no whole number of at least 1, and for an unknown policy.
 */
export function replay(trace: KvTrace, settings: ReplaySettings): ReplayResult {
  const { policy: name, capacity, semantics = "flat", leafSafe = false, hints = true } = settings;
  if (!Number.isInteger(capacity) || capacity < 1)
    throw new HotsetError("argument", { where: "replay", expected: "a capacity of at least 1 block", received: String(capacity) });
  const policy = policyFor(
    trace,
    name,
    { capacity, unique: trace.unique, prefixHits: semantics !== "flat" },
    semantics === "req" || leafSafe,
  );
  const context = contextOf(trace, hints);
  const hits = leafSafe
    ? new LeafSafe(trace, policy, capacity).run(semantics, context)
    : semantics === "req"
      ? byRequest(trace, policy, capacity, context)
      : byAccess(trace, policy, capacity, context, semantics === "prefix");
  return { policy: name, capacity, hits, references: trace.references };
}

/** Fills the context of request `r`, and returns it. */
export type ContextOf = (r: number) => RequestContext;

function byAccess(trace: KvTrace, policy: EvictionPolicy, capacity: number, context: ContextOf, prefix: boolean): number {
  const { blocks, offsets } = trace;
  const resident = new Uint8Array(trace.unique);
  let [size, hits] = [0, 0];
  for (let r = 0; r < trace.requests; r++) {
    const request = context(r);
    policy.begin?.(request);
    let counts = true;
    for (let i = offsets[r] as number, end = offsets[r + 1] as number; i < end; i++) {
      const block = blocks[i] as number;
      if (resident[block]) {
        if (counts) hits++;
        policy.touch(block, i);
        continue;
      }
      if (prefix) counts = false;
      size = enter(policy, resident, size, capacity, block, i);
    }
    policy.end?.(request);
  }
  return hits;
}

function byRequest(trace: KvTrace, policy: EvictionPolicy, capacity: number, context: ContextOf): number {
  const { blocks, offsets } = trace;
  const resident = new Uint8Array(trace.unique);
  let [size, hits] = [0, 0];
  for (let r = 0; r < trace.requests; r++) {
    const [from, to] = [offsets[r] as number, offsets[r + 1] as number];
    let until = from;
    while (until < to && resident[blocks[until] as number]) until++;
    hits += until - from;
    const request = context(r);
    policy.begin?.(request);
    for (let i = to - 1; i >= from; i--) {
      const block = blocks[i] as number;
      if (resident[block]) policy.touch(block, i);
      else size = enter(policy, resident, size, capacity, block, i);
    }
    policy.end?.(request);
  }
  return hits;
}

/** Makes room for a block that is not resident and inserts it. Returns how many are resident then. */
function enter(policy: EvictionPolicy, resident: Uint8Array, size: number, capacity: number, block: number, position: number): number {
  policy.miss(block, position);
  let left = size;
  if (left >= capacity) {
    const victim = policy.victim(block, position);
    if (victim < 0) return left;
    policy.remove(victim);
    resident[victim] = 0;
    left--;
  }
  policy.insert(block, position);
  resident[block] = 1;
  return left + 1;
}

/** One context object for the whole replay. */
export function contextOf(trace: KvTrace, hints: boolean): ContextOf {
  const context: RequestContext = { request: 0, blocks: trace.blocks, from: 0, to: 0, reply: 0 };
  return (r) => {
    context.request = r;
    context.from = trace.offsets[r] as number;
    context.to = trace.offsets[r + 1] as number;
    if (hints && trace.reply) context.reply = trace.reply[r] as number;
    return context;
  };
}

function policyFor(trace: KvTrace, name: ReplayPolicy, setting: PolicySetting, lastFirst: boolean): EvictionPolicy {
  switch (name) {
    case "lru":
      return new Lru(setting);
    case "fifo":
      return new Fifo(setting);
    case "lfu":
      return new Lfu(setting);
    case "sieve":
      return new Sieve(setting);
    case "s3fifo":
      return new S3Fifo(setting);
    case "arc":
      return new Arc(setting);
    case "gdsf":
      return new Gdsf(setting);
    case "hazard":
      return new Hazard(setting);
    case "belady":
    case "belady-bypass":
      return new Belady({ ...setting, ...future(trace, lastFirst) }, name === "belady-bypass");
    default:
      throw new HotsetError("argument", {
        where: "replay",
        expected: `a policy of ${replayPolicies.join(", ")}`,
        received: JSON.stringify(name),
      });
  }
}

/** When each reference's block is used next: its reference if blocks are used in order, else the request it is in. */
function future(trace: KvTrace, lastFirst: boolean): { next: Float64Array; depth: (position: number) => number } {
  const { blocks, offsets } = trace;
  const next = new Float64Array(trace.references);
  const seen = new Float64Array(trace.unique).fill(Number.POSITIVE_INFINITY);
  const depths = new Int32Array(trace.references);
  for (let r = trace.requests - 1; r >= 0; r--) {
    const [from, to] = [offsets[r] as number, offsets[r + 1] as number];
    for (let k = 0; k < to - from; k++) {
      const i = lastFirst ? from + k : to - 1 - k;
      const block = blocks[i] as number;
      next[i] = seen[block] as number;
      seen[block] = lastFirst ? r : i;
      depths[i] = i - from;
    }
  }
  return { next, depth: (position) => depths[position] as number };
}
