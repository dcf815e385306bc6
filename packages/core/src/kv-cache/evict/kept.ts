import { HotsetError } from "../../errors.js";

/** The tokens that each KV head of one sequence keeps: what `kv-cache/compact` takes. */
export interface KeptTokens {
  /** `[kvHeads, maxKept]` token numbers, ascending; -1 in the tail. */
  readonly kept: Int32Array;
  /** `[kvHeads]` how many each head keeps. */
  readonly keptCount: Int32Array;
  readonly maxKept: number;
}

/** The same tokens for every head. */
export function sameForAll(tokens: readonly number[], kvHeads: number): KeptTokens {
  const maxKept = tokens.length;
  const kept = new Int32Array(kvHeads * maxKept);
  for (let head = 0; head < kvHeads; head++) kept.set(tokens, head * maxKept);
  return { kept, keptCount: new Int32Array(kvHeads).fill(maxKept), maxKept };
}

/**
 * The pages that hold nothing more once `kept` was compacted: those behind the head that keeps most.
 * `pages` are the pages of the sequence, in order.
 */
export function freedPages(pages: ArrayLike<number>, { keptCount }: KeptTokens, pageSize: number): number[] {
  let longest = 0;
  for (const count of keptCount) longest = Math.max(longest, count);
  return Array.from(pages).slice(Math.ceil(longest / pageSize));
}

export function mustBeWhole(where: string, name: string, value: number, least: number, why = ""): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw new HotsetError("argument", { where, expected: `${name} of at least ${least}${why}`, received: String(value) });
}
