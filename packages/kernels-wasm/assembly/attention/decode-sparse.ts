// attention/decode-sparse: attention/decode over the tokens of lists of granules, one list for some heads.
//
// First each list is read and checked, once: its granules, how many tokens they have, and where each chunk of them begins
// (decode-lists.ts). Then the tokens are met as those of a whole context are (decode-chunks.ts): cut by their number only,
// so with everything listed it is attention/decode bit for bit. The heads of a KV head that share a list go together, heads
// with lists of their own one by one (a quarter of the lanes). Bound by multiply-add.
import { ATTENTION_DECODE_SPARSE_PORT_SELECTED, AttentionDecodeSparseParams } from "../gen/params";
import { KernelPlan, Status } from "../lib/kernel";
import { attend, join, plan_decode } from "./decode-chunks";
import { check_list } from "./decode-lists";
import { Decode, decode_at, decode_for, LISTED, shared_params } from "./decode-shape";

export function attention_decode_sparse_plan(params: AttentionDecodeSparseParams, slots: u32, out: KernelPlan): void {
  const decode = decode_for(out);
  open(decode, params, slots);
  plan_decode(decode, params.batch * params.lists, out);
}

export function attention_decode_sparse_task(
  params: AttentionDecodeSparseParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const decode = decode_at(scratch, slot);
  open(decode, params, slots);
  if (phase == 0) check_list(decode, task, ATTENTION_DECODE_SPARSE_PORT_SELECTED, status);
  else if (phase == 1) attend(decode, task, status);
  else join(decode, task);
}

function open(decode: Decode, params: AttentionDecodeSparseParams, slots: u32): void {
  decode.kind = LISTED;
  decode.granularity = params.granularity;
  decode.lists = params.lists;
  decode.k = params.k;
  decode.selected = params.selected;
  decode.cut(shared_params<AttentionDecodeSparseParams>(params, decode), slots);
}
