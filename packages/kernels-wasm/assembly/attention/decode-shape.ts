// How a decode step is cut into tasks and where everything lies in the scratch; and one task's view of it.
import { AttentionDecodeParams, DTYPE_F32 } from "../gen/params";
import { align_line } from "../lib/kernel";

/** Query heads that meet a key together: the lanes of a vector. Groups of other sizes are filled up with zeros. */
export const HEADS: u32 = 4;
/** Long, because its rows are met in an order that memory likes (decode-tile.ts). */
export const TILE_TOKENS: u32 = 256;
const CHUNK_TOKENS: u32 = 512;
const MAX_CHUNKS: u32 = 64;
// Tasks enough for any number of cores; chunks of a sequence share one where there are more.
const TASKS: u64 = 256;
const CONTEXT_BYTES: u64 = 256;
/** A state of four heads: largest [4], sum [4]; from here on values [4][value_pitch]. */
export const STATE_VALUES: usize = 32;

/** Tokens of a chunk of a context: at most 64 chunks of at least 512 tokens, whatever else is in the batch. */
export function chunk_tokens(tokens: u32): u32 {
  const share = (tokens + MAX_CHUNKS - 1) / MAX_CHUNKS;
  return max(CHUNK_TOKENS, (share + TILE_TOKENS - 1) & ~(TILE_TOKENS - 1));
}

@unmanaged
export class Decode {
  params: AttentionDecodeParams;
  scratch: usize;
  slot: u32;
  /** Query heads of a KV head, in blocks of HEADS. */
  group: u32;
  blocks: u32;
  /** Floats of a padded query and of a padded value: whole vectors. */
  query_pitch: u32;
  value_pitch: u32;
  /** Keys and values are widened before they are met: many heads share them, or they fill no whole vectors. */
  wide: bool;
  /** Chunks of the longest context, and parts that they are dealt to. */
  chunks: u32;
  parts: u32;
  /** Bytes of the state of one block of heads over one chunk. */
  state_bytes: u64;
  ranges_at: u64;
  states_at: u64;
  slots_at: u64;
  slot_bytes: u64;
  bytes: u64;

  /** Sizes are 64-bit: a plan may find that they do not fit. */
  cut(params: AttentionDecodeParams, slots: u32): void {
    this.params = params;
    this.group = params.query_heads / params.kv_heads;
    this.blocks = (this.group + HEADS - 1) / HEADS;
    this.query_pitch = (params.head_dim + 3) & ~3;
    this.value_pitch = (params.value_dim + 3) & ~3;
    const widened = this.group > HEADS && params.key_pages_dtype != DTYPE_F32;
    this.wide = widened || ((params.head_dim | params.value_dim) & 3) != 0;
    const tokens = params.max_pages * params.page_size;
    this.chunks = min(MAX_CHUNKS, (tokens + CHUNK_TOKENS - 1) / CHUNK_TOKENS);
    const heads = <u64>params.batch * params.kv_heads;
    this.parts = <u32>min<u64>(this.chunks, (TASKS + heads - 1) / max<u64>(1, heads));
    this.state_bytes = STATE_VALUES + 16 * <u64>this.value_pitch;
    this.ranges_at = <u64>slots * CONTEXT_BYTES;
    this.states_at = align_line(this.ranges_at + 8 * <u64>params.batch);
    this.slots_at = align_line(this.states_at + heads * this.blocks * this.chunks * this.state_bytes);
    this.slot_bytes = align_line(this.wide_at() + (this.wide ? 4 * <u64>TILE_TOKENS * max(this.query_pitch, this.value_pitch) : 0));
    this.bytes = this.slots_at + <u64>slots * this.slot_bytes;
  }

  // What each slot has to itself: padded queries [blocks][4][query_pitch]; logits of each block [tile][4]; key and value
  // addresses [tile], scales [tile]; widened rows [tile][pitch].
  private logits_at(): u64 {
    return align_line(16 * <u64>this.blocks * this.query_pitch);
  }
  private tile_at(): u64 {
    return this.logits_at() + 16 * <u64>this.blocks * TILE_TOKENS;
  }
  private wide_at(): u64 {
    return align_line(this.tile_at() + 20 * (<u64>TILE_TOKENS + 4));
  }

  own(): usize {
    return this.scratch + <usize>this.slots_at + this.slot * <usize>this.slot_bytes;
  }
  queries(block: u32): usize {
    return this.own() + block * 16 * this.query_pitch;
  }
  logits(block: u32): usize {
    return this.own() + <usize>this.logits_at() + block * 16 * TILE_TOKENS;
  }
  /** Slots of the tile's tokens, in their order; then addresses and scales in the order they are met. */
  tile_slots(): usize {
    return this.own() + <usize>this.tile_at();
  }
  keys(): usize {
    return this.tile_slots() + 4 * (TILE_TOKENS + 4);
  }
  values(): usize {
    return this.keys() + 4 * (TILE_TOKENS + 4);
  }
  key_scales(): usize {
    return this.values() + 4 * (TILE_TOKENS + 4);
  }
  value_scales(): usize {
    return this.key_scales() + 4 * (TILE_TOKENS + 4);
  }
  wide_rows(): usize {
    return this.own() + <usize>this.wide_at();
  }

  /** First token and end of what a sequence sees: two i32. */
  range(sequence: u32): usize {
    return this.scratch + <usize>this.ranges_at + sequence * 8;
  }
  /** State of a block of heads of one KV head over one chunk. */
  state(sequence: u32, kv_head: u32, block: u32, chunk: u32): usize {
    const at = ((sequence * this.params.kv_heads + kv_head) * this.blocks + block) * this.chunks + chunk;
    return this.scratch + <usize>this.states_at + at * <usize>this.state_bytes;
  }
}

/** A task's view, at its slot's place in the scratch. */
export function decode_of(params: AttentionDecodeParams, scratch: usize, slot: u32, slots: u32): Decode {
  const decode = changetype<Decode>(scratch + slot * <usize>CONTEXT_BYTES);
  decode.cut(params, slots);
  decode.scratch = scratch;
  decode.slot = slot;
  return decode;
}
