/** Sizes that a policy and a cache come to, and arrays for them. */
import type { CacheAxes } from "./layer-reuse.js";
import type { AnchorRule } from "./layer-reuse-policy.js";

export const longest = (lengths: Int32Array): number => lengths.reduce((most, length) => Math.max(most, length), 0);

/** Of the sequences that have tokens; Infinity where none has. */
export const shortest = (lengths: Int32Array): number =>
  lengths.reduce((least, length) => (length > 0 ? Math.min(least, length) : least), Number.POSITIVE_INFINITY);

export const granulesOf = ({ maxPages, pageSize }: CacheAxes, granularity: number): number =>
  Math.ceil((maxPages * pageSize) / granularity);

/** Entries that an anchor lists of a context of so many tokens. */
export function entriesOf({ k = 0, ratio = 0 }: AnchorRule, granularity: number, tokens: number): number {
  return Math.max(1, Math.ceil(Math.max(k, Math.ceil(ratio * tokens)) / granularity));
}

/** Which sequences of a batch attend to everything because they are shorter than `minContext`: those that have tokens count. */
export function gateOf(lengths: Int32Array, minContext: number): "all" | "some" | "none" {
  if (minContext === 0) return "none";
  let [short, long] = [0, 0];
  for (const length of lengths) {
    if (length >= minContext) long++;
    else if (length > 0) short++;
  }
  return long === 0 ? "all" : short === 0 ? "none" : "some";
}

/** An array for a port: in the backend's memory where the host sees it, so that no run copies it. */
export function hostArray<A extends Float32Array | Int32Array | Uint32Array>(
  plan: { readonly onDevice: boolean; alloc(port: never): { readonly data: unknown } },
  port: string,
  length: number,
  kind: new (length: number) => A,
): A {
  return plan.onDevice ? new kind(length) : (plan.alloc(port as never).data as A);
}
