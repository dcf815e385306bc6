// attention/decode: out = softmax(softCap(scale q K^T)) V over a paged cache, one query per head.
//
// Online softmax (largest, sum, weighted values) in f32, over tiles of 256 tokens (decode-tile.ts); the context of a
// sequence is cut into at most 64 chunks of at least 512 tokens, by its own length only, and their states are joined
// in order: the same bits alone or in a batch, in pages of any size, on any number of threads.
// The query heads of a KV head go four at a time, and K and V are widened once. Bound by multiply-add.
// Page numbers and lengths are compared where they are loaded, and used as compared.
import { AttentionDecodeParams } from "../gen/params";
import { KernelPlan, Status } from "../lib/kernel";
import { attend, find_ranges, join, plan_decode } from "./decode-chunks";
import { decode_at, decode_for, WHOLE } from "./decode-shape";

export function attention_decode_plan(params: AttentionDecodeParams, slots: u32, out: KernelPlan): void {
  const decode = decode_for(out);
  decode.kind = WHOLE;
  decode.cut(params, slots);
  plan_decode(decode, 1, out);
}

export function attention_decode_task(
  params: AttentionDecodeParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const decode = decode_at(scratch, slot);
  decode.kind = WHOLE;
  decode.cut(params, slots);
  if (phase == 0) find_ranges(decode, status);
  else if (phase == 1) attend(decode, task, status);
  else join(decode, task);
}
