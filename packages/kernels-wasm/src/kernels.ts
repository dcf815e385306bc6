/**
 * The kernels of this backend: one row an op, its kernels' names by the number that the plan writes. Support,
 * lookup and tests follow from the row.
 */
export const kernels: Readonly<Record<string, readonly string[]>> = {
  "attention/decode": ["chunks"],
  "attention/merge": ["rows"],
  "attention/prefill": ["tiles"],
  "attention/rope": ["tokens"],
  "kv-cache/pool-apply": ["queue"],
  "logits/logprob": ["rows"],
  "logits/sample": ["heap"],
  "model/embedding": ["rows"],
  "model/linear": ["rows", "panel"],
  "model/rms-norm": ["tokens"],
  "model/swiglu": ["vectors"],
  "search/scan": ["stream", "stream-i16", "panel", "panel-i16"],
};
