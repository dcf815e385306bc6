/**
 * The kernels of this backend: one row an op, its kernels' names by the number that the plan writes. Support,
 * lookup and tests follow from the row.
 */
export const kernels: Readonly<Record<string, readonly string[]>> = {
  "attention/decode": ["chunks"],
  "attention/merge": ["rows"],
  "kv-cache/append": ["rows"],
  "kv-cache/compact": ["heads"],
  "kv-cache/pool-apply": ["queue"],
  "search/scan": ["stream", "stream-i16", "panel", "panel-i16"],
};
