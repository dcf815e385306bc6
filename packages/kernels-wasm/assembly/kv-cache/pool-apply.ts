// kv-cache/pool-apply: allocate, retain, release and discard on a block pool in a flat buffer.
//
// State: magic, blocks, free blocks, head, tail, 3 spare; references [blocks], previous [blocks], next [blocks].
// A doubly linked free queue; each command is O(1) and touches at most 4 words. Links are compared before they
// are followed, so a damaged state is a fault and never a wild access. Commands depend on each other: one task.
import { KV_CACHE_POOL_APPLY_PORT_COMMANDS, KV_CACHE_POOL_APPLY_PORT_STATE, KvCachePoolApplyParams } from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";

const NONE: u32 = 0xffffffff;
const MAGIC: u32 = 0x4c4f4f50;
const HEADER_BYTES: usize = 32;
// Byte offsets in the header.
const MAGIC_AT: usize = 0;
const BLOCKS_AT: usize = 4;
const FREE_AT: usize = 8;
const HEAD_AT: usize = 12;
const TAIL_AT: usize = 16;

export function kv_cache_pool_apply_plan(params: KvCachePoolApplyParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = params.count > 0 ? 1 : 0;
  out.tasks0 = 1;
  out.scratch_bytes = <f64>offsetof<Pool>();
}

export function kv_cache_pool_apply_task(
  params: KvCachePoolApplyParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const pool = changetype<Pool>(scratch);
  pool.open(params, status);
  const state = params.state;
  if (load<u32>(state, MAGIC_AT) == 0 && load<u32>(state, BLOCKS_AT) == 0) pool.initialise();
  const magic = load<u32>(state, MAGIC_AT);
  const blocks = load<u32>(state, BLOCKS_AT);
  const sound = magic == MAGIC && blocks == params.blocks;
  if (!sound) pool.damaged(state + (magic == MAGIC ? BLOCKS_AT : MAGIC_AT), magic == MAGIC ? blocks : magic);
  const results = params.results;
  for (let i: u32 = 0; i < params.count; i++) store<i32>(results + i * 4, sound ? pool.apply(i) : -1);
}

@unmanaged
class Pool {
  status: Status;
  state: usize;
  blocks: u32;
  commands: usize;
  references: usize;
  previous: usize;
  next: usize;

  open(params: KvCachePoolApplyParams, status: Status): void {
    this.status = status;
    this.state = params.state;
    this.blocks = params.blocks;
    this.commands = params.commands;
    this.references = params.state + HEADER_BYTES;
    this.previous = this.references + params.blocks * 4;
    this.next = this.previous + params.blocks * 4;
  }

  initialise(): void {
    const blocks = this.blocks;
    for (let at = this.state, end = this.previous; at < end; at += 4) store<u32>(at, 0);
    store<u32>(this.state, MAGIC, MAGIC_AT);
    store<u32>(this.state, blocks, BLOCKS_AT);
    store<u32>(this.state, blocks, FREE_AT);
    store<u32>(this.state, blocks - 1, TAIL_AT);
    for (let b: u32 = 0; b < blocks; b++) {
      store<u32>(this.previous + b * 4, b == 0 ? NONE : b - 1);
      store<u32>(this.next + b * 4, b == blocks - 1 ? NONE : b + 1);
    }
  }

  /** Each word is read once: what was compared is what is used, even while another thread writes it. */
  apply(i: u32): i32 {
    const opcode = load<u32>(this.commands + i * 8);
    const block = load<u32>(this.commands + i * 8, 4);
    if (opcode == 0) return this.allocate();
    if (opcode > 3) {
      fail(this.status, KV_CACHE_POOL_APPLY_PORT_COMMANDS, 2 * i, opcode);
      return -1;
    }
    if (block >= this.blocks) {
      fail(this.status, KV_CACHE_POOL_APPLY_PORT_COMMANDS, 2 * i + 1, block);
      return -1;
    }
    return opcode == 1 ? this.retain(block) : this.release(block, opcode == 3, 2 * i + 1);
  }

  damaged(word: usize, value: u32): bool {
    fail(this.status, KV_CACHE_POOL_APPLY_PORT_STATE, (word - this.state) >> 2, value);
    return false;
  }

  private allocate(): i32 {
    const head = this.state + HEAD_AT;
    const block = load<u32>(head);
    if (block == NONE || !this.unlink(block, head)) return -1;
    store<u32>(this.references + block * 4, 1);
    return block;
  }

  private retain(block: u32): i32 {
    const at = this.references + block * 4;
    const references = load<u32>(at);
    if (references == 0 && !this.unlink(block, at)) return -1;
    store<u32>(at, references + 1);
    return references + 1;
  }

  private release(block: u32, front: bool, command: u32): i32 {
    const at = this.references + block * 4;
    const references = load<u32>(at);
    if (references == 0) {
      fail(this.status, KV_CACHE_POOL_APPLY_PORT_COMMANDS, command, block);
      return -1;
    }
    if (references == 1 && !this.link(block, front)) return -1;
    store<u32>(at, references - 1);
    return references - 1;
  }

  /** Takes a block out of the free queue; `from` is the word its number came from. */
  private unlink(block: u32, from: usize): bool {
    const blocks = this.blocks;
    if (block >= blocks) return this.damaged(from, block);
    const previous = this.previous + block * 4;
    const next = this.next + block * 4;
    const before = load<u32>(previous);
    const after = load<u32>(next);
    if (before != NONE && before >= blocks) return this.damaged(previous, before);
    if (after != NONE && after >= blocks) return this.damaged(next, after);
    store<u32>(before == NONE ? this.state + HEAD_AT : this.next + before * 4, after);
    store<u32>(after == NONE ? this.state + TAIL_AT : this.previous + after * 4, before);
    store<u32>(this.state, load<u32>(this.state, FREE_AT) - 1, FREE_AT);
    return true;
  }

  private link(block: u32, front: bool): bool {
    const end = this.state + (front ? HEAD_AT : TAIL_AT);
    const neighbour = load<u32>(end);
    if (neighbour != NONE && neighbour >= this.blocks) return this.damaged(end, neighbour);
    store<u32>(this.previous + block * 4, front ? NONE : neighbour);
    store<u32>(this.next + block * 4, front ? neighbour : NONE);
    if (neighbour == NONE) store<u32>(this.state + (front ? TAIL_AT : HEAD_AT), block);
    else store<u32>((front ? this.previous : this.next) + neighbour * 4, block);
    store<u32>(end, block);
    store<u32>(this.state, load<u32>(this.state, FREE_AT) + 1, FREE_AT);
    return true;
  }
}
