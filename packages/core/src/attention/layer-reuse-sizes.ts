/** Sizes that a policy and a cache come to, and arrays for them. */
import type { CacheAxes } from "./layer-reuse.js";
import type { AnchorRule } from "./layer-reuse-policy.js";

export const longest = (lengths: Int32Array): number => lengths.reduce((most, length) => Math.max(most, length), 0);

export const granulesOf = ({ maxPages, pageSize }: CacheAxes, granularity: number): number =>
  Math.ceil((maxPages * pageSize) / granularity);

/** Entries that an anchor lists of a context of so many tokens. */
export function entriesOf({ k = 0, ratio = 0 }: AnchorRule, granularity: number, tokens: number): number {
  return Math.max(1, Math.ceil(Math.max(k, Math.ceil(ratio * tokens)) / granularity));
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
