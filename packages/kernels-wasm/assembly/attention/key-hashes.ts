// attention/key-hashes: the signs of each new key, as bits, into its slot.
//
// Comparisons with 0 give four bits at once. A task is 128 KiB of new keys, whose bandwidth bounds it.
import { ATTENTION_KEY_HASHES_PORT_SLOTS, AttentionKeyHashesParams } from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";

const TASK_FLOATS: u64 = 32 << 10;

export function attention_key_hashes_plan(params: AttentionKeyHashesParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  const each = task_tokens(params);
  out.tasks0 = <u32>((<u64>params.tokens + each - 1) / each);
  out.scratch_bytes = 0;
}

export function attention_key_hashes_task(
  params: AttentionKeyHashesParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_tokens(params);
  const end = <u32>min<u64>(params.tokens, (<u64>task + 1) * each);
  const heads = params.kv_heads;
  const page_size = params.page_size;
  const bytes: usize = params.bits / 8;
  for (let t = <u32>(<u64>task * each); t < end; t++) {
    const target = load<i32>(params.slots + t * 4);
    if (target == -1) continue;
    if (target < 0 || <u64>target >= <u64>params.pages * page_size) {
      fail(status, ATTENTION_KEY_HASHES_PORT_SLOTS, t, target);
      continue;
    }
    for (let head: u32 = 0; head < heads; head++) {
      let key = params.keys + <usize>(t * heads + head) * params.bits * 4;
      const to = ((<u32>target / page_size) * heads + head) * page_size + (<u32>target % page_size);
      let hash = params.hash_pages + to * bytes;
      for (const stop = hash + bytes; hash < stop; hash += 4, key += 128) store<u32>(hash, signs_of(key));
    }
  }
}

function task_tokens(params: AttentionKeyHashesParams): u64 {
  return max<u64>(1, TASK_FLOATS / (<u64>params.kv_heads * params.bits));
}

/** Of 32 floats. */
function signs_of(row: usize): u32 {
  let word: u32 = 0;
  for (let i: u32 = 0; i < 32; i += 4) word |= i32x4.bitmask(f32x4.lt(v128.load(row + i * 4), f32x4.splat(0))) << i;
  return word;
}
