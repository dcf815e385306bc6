/**
 * The kernels of this backend: one row an op, its kernels' names by the number that the plan writes. Support,
 * lookup and tests follow from the row.
 */
export const kernels: Readonly<Record<string, readonly string[]>> = {
  "attention/decode": ["chunks"],
  "attention/decode-anchor": ["chunks"],
  "attention/decode-sparse": ["chunks"],
  "attention/merge": ["rows"],
  "attention/prefill": ["tiles"],
  "attention/rope": ["tokens"],
  "attention/select": ["radix"],
  "kv-cache/append": ["rows"],
  "kv-cache/compact": ["heads"],
  "kv-cache/pool-apply": ["queue"],
  "linalg/ridge": ["runs"],
  "logits/logprob": ["rows"],
  "logits/sample": ["heap"],
  "model/embedding": ["rows"],
  "model/linear": ["rows", "panel"],
  "model/rms-norm": ["tokens"],
  "model/swiglu": ["vectors"],
  "moe/align": ["counts"],
  "moe/combine": ["rows"],
  "moe/grouped-ffn": ["tiles"],
  "moe/route": ["list"],
  "search/scan": ["stream", "stream-i16", "panel", "panel-i16"],
};
