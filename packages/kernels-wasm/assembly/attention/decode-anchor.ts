// attention/decode-anchor: attention/decode, and masses_g = mean over the heads of sum_{t in g} exp(logit_t - lse).
//
// The step is that of decode-chunks.ts, bit for bit. On the way each block of four heads keeps, for each granule of a chunk,
// the sums of its weights and the logits they are relative to (decode-masses.ts): one addition a token. Joining scales them
// to the log-sum-exp. Bound by multiply-add, as the dense step.
import { AttentionDecodeAnchorParams } from "../gen/params";
import { KernelPlan, Status } from "../lib/kernel";
import { attend, find_ranges, join, plan_decode } from "./decode-chunks";
import { Decode, decode_at, decode_for, shared_params, WEIGHED } from "./decode-shape";

export function attention_decode_anchor_plan(params: AttentionDecodeAnchorParams, slots: u32, out: KernelPlan): void {
  const decode = decode_for(out);
  open(decode, params, slots);
  plan_decode(decode, 1, out);
}

export function attention_decode_anchor_task(
  params: AttentionDecodeAnchorParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const decode = decode_at(scratch, slot);
  open(decode, params, slots);
  if (phase == 0) find_ranges(decode, status);
  else if (phase == 1) attend(decode, task, status);
  else join(decode, task);
}

function open(decode: Decode, params: AttentionDecodeAnchorParams, slots: u32): void {
  decode.kind = WEIGHED;
  decode.granularity = params.granularity;
  decode.masses = params.masses;
  decode.cut(shared_params<AttentionDecodeAnchorParams>(params, decode), slots);
}
