/**
 * The kernels of this backend: one row an op, its kernels' names by the number that the plan writes. Support,
 * lookup and tests follow from the row.
 */
export const kernels: Readonly<Record<string, readonly string[]>> = {
  "attention/decode": ["chunks"],
  "attention/decode-anchor": ["chunks"],
  "attention/decode-sparse": ["chunks"],
  "attention/merge": ["rows"],
  "attention/select": ["radix"],
  "kv-cache/pool-apply": ["queue"],
  "linalg/ridge": ["runs"],
  "moe/align": ["counts"],
  "moe/combine": ["rows"],
  "moe/grouped-ffn": ["tiles"],
  "moe/route": ["list"],
  "search/scan": ["stream", "stream-i16", "panel", "panel-i16"],
};
