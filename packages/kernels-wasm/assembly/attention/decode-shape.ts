// How a decode step is cut into tasks and where everything lies in the scratch; and one task's view of it.
import { AttentionDecodeParams, DTYPE_F32 } from "../gen/params";
import { align_line, KernelPlan } from "../lib/kernel";

/** Query heads that meet a key together: the lanes of a vector. Groups of other sizes are filled up with zeros. */
export const HEADS: u32 = 4;
/** Long, because its rows are met in an order that memory likes (decode-tile.ts). */
export const TILE_TOKENS: u32 = 256;
const CHUNK_TOKENS: u32 = 512;
export const MAX_CHUNKS: u32 = 64;
// Tasks enough for any number of cores; chunks of a sequence share one where there are more.
const TASKS: u64 = 256;
const CONTEXT_BYTES: u64 = 512;
/** Which tokens the heads of a unit see, and what is kept of them: all, those of a list, or all and their masses. */
export const WHOLE: u32 = 0;
export const LISTED: u32 = 1;
export const WEIGHED: u32 = 2;
/** A list: tokens, first token seen, end; where each chunk begins (entry, token of it); granules. */
export const LIST_CHUNKS: usize = 16;
const LIST_GRANULES: usize = 16 + 8 * MAX_CHUNKS;
/** Where the weights of a granule's tokens lie in a tile: granule, first, count, step; at most one a token and 4 more. */
export const PIECE: usize = 16;
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
  /** Of a sibling: its kind and its own parameters. */
  kind: u32;
  granularity: u32;
  lists: u32;
  k: u32;
  selected: usize;
  masses: usize;
  /** Heads that see the same tokens of the same KV head make a unit: so many of `group`, in blocks of HEADS. */
  units: u32;
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
  masses_at: u64;
  states_at: u64;
  slots_at: u64;
  pieces_at: u64;
  bias_at: u64;
  slot_bytes: u64;
  bytes: u64;

  /** Where the tokens of the next tile begin: a token, or an entry of a list and a token of it; and how many are left. */
  entry: u32;
  offset: u32;
  left: u32;

  /** Sizes are 64-bit: a plan may find that they do not fit. What a sibling has of its own is set before. */
  cut(params: AttentionDecodeParams, slots: u32): void {
    this.params = params;
    this.group = this.kind == LISTED && this.lists == params.query_heads ? 1 : params.query_heads / params.kv_heads;
    this.units = params.query_heads / this.group;
    this.blocks = (this.group + HEADS - 1) / HEADS;
    this.query_pitch = (params.head_dim + 3) & ~3;
    this.value_pitch = (params.value_dim + 3) & ~3;
    const widened = this.group > HEADS && params.key_pages_dtype != DTYPE_F32;
    this.wide = widened || ((params.head_dim | params.value_dim) & 3) != 0;
    const tokens = this.kind == LISTED ? this.k * this.granularity : params.max_pages * params.page_size;
    this.chunks = min(MAX_CHUNKS, (tokens + CHUNK_TOKENS - 1) / CHUNK_TOKENS);
    const units = <u64>params.batch * this.units;
    this.parts = <u32>min<u64>(this.chunks, (TASKS + units - 1) / max<u64>(1, units));
    this.state_bytes = STATE_VALUES + 16 * <u64>this.value_pitch;
    this.ranges_at = <u64>slots * CONTEXT_BYTES;
    this.masses_at = align_line(this.ranges_at + 8 * <u64>params.batch);
    const lists = this.kind == LISTED ? <u64>params.batch * this.lists * this.list_bytes() : 0;
    const masses = this.kind == WEIGHED ? units * this.blocks * this.places() * 32 : 0;
    this.states_at = align_line(this.masses_at + lists + masses);
    this.slots_at = align_line(this.states_at + units * this.blocks * this.chunks * this.state_bytes);
    this.slot_bytes = align_line(this.wide_at() + (this.wide ? 4 * <u64>TILE_TOKENS * max(this.query_pitch, this.value_pitch) : 0));
    this.pieces_at = this.slot_bytes;
    if (this.kind == WEIGHED) this.slot_bytes += align_line(4 * <u64>TILE_TOKENS + PIECE * (TILE_TOKENS + 8));
    this.bias_at = this.slot_bytes;
    this.slot_bytes += 16 * <u64>TILE_TOKENS;
    this.bytes = this.slots_at + <u64>slots * this.slot_bytes;
  }

  // What each slot has to itself: padded queries [blocks][4][query_pitch]; logits of each block [tile][4]; key and value
  // addresses [tile], scales [tile]; places [tile]; widened rows [tile][pitch].
  private logits_at(): u64 {
    return align_line(16 * <u64>this.blocks * this.query_pitch);
  }
  private tile_at(): u64 {
    return this.logits_at() + 16 * <u64>this.blocks * TILE_TOKENS;
  }
  private wide_at(): u64 {
    return align_line(this.tile_at() + 24 * (<u64>TILE_TOKENS + 4));
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
  /** Of each token of the tile its place in the sequence, in their order; where there are slopes or masks only. */
  tile_places(): usize {
    return this.value_scales() + 4 * (TILE_TOKENS + 4);
  }
  /** What is added to the logits of a block: [tile][4], in the order they are met. */
  bias(): usize {
    return this.own() + <usize>this.bias_at;
  }
  wide_rows(): usize {
    return this.own() + <usize>this.wide_at();
  }

  /** First token and end of what a sequence sees: two i32. */
  range(sequence: u32): usize {
    return this.scratch + <usize>this.ranges_at + sequence * 8;
  }
  private list_bytes(): u64 {
    return align_line(<u64>LIST_GRANULES + 4 * <u64>this.k);
  }
  /** A list of a sequence, checked. */
  list(sequence: u32, at: u32): usize {
    return this.scratch + <usize>this.masses_at + (sequence * this.lists + at) * <usize>this.list_bytes();
  }
  list_granules(list: usize): usize {
    return list + LIST_GRANULES;
  }
  list_of(sequence: u32, unit: u32): usize {
    return this.list(sequence, this.lists == 1 ? 0 : unit);
  }
  /** Slopes or masks have a part in the logits. */
  biased(): bool {
    return (this.params.slopes | this.params.mask) != 0;
  }
  /** The query's token. */
  last(sequence: u32, unit: u32): u32 {
    return load<u32>(this.kind == LISTED ? this.list_of(sequence, unit) + 4 : this.range(sequence), 4) - 1;
  }
  /** How many tokens a unit sees. */
  tokens(sequence: u32, unit: u32): u32 {
    if (this.kind == LISTED) return load<u32>(this.list_of(sequence, unit));
    return load<u32>(this.range(sequence), 4) - load<u32>(this.range(sequence));
  }
  kv_head(unit: u32): u32 {
    return this.units == this.params.kv_heads ? unit : unit / (this.params.query_heads / this.params.kv_heads);
  }

  /** Granules of a whole context. */
  granules(): u32 {
    return <u32>((<u64>this.params.max_pages * this.params.page_size + this.granularity - 1) / this.granularity);
  }
  /** A chunk's granules lie one place further for each chunk before it: two chunks may share a granule. */
  private places(): u64 {
    return <u64>this.granules() + MAX_CHUNKS;
  }
  /** For each place what the weights of four heads are relative to [4], and their sums [4]. */
  mass(sequence: u32, unit: u32, block: u32): usize {
    const at = (sequence * this.units + unit) * this.blocks + block;
    return this.scratch + <usize>this.masses_at + at * <usize>this.places() * 32;
  }
  /** The granule of each token of the tile; then the pieces. */
  tile_granules(): usize {
    return this.own() + <usize>this.pieces_at;
  }
  pieces(): usize {
    return this.tile_granules() + 4 * TILE_TOKENS;
  }

  /** State of a block of heads of one unit over one chunk. */
  state(sequence: u32, unit: u32, block: u32, chunk: u32): usize {
    const at = ((sequence * this.units + unit) * this.blocks + block) * this.chunks + chunk;
    return this.scratch + <usize>this.states_at + at * <usize>this.state_bytes;
  }
}

/** A task's view, at its slot's place in the scratch; `cut` comes next. */
export function decode_at(scratch: usize, slot: u32): Decode {
  const decode = changetype<Decode>(scratch + slot * <usize>CONTEXT_BYTES);
  decode.scratch = scratch;
  decode.slot = slot;
  return decode;
}

/** For a plan: behind what it writes. */
export function decode_for(plan: KernelPlan): Decode {
  return changetype<Decode>(changetype<usize>(plan) + offsetof<KernelPlan>());
}

/** The parameters that a sibling shares with attention/decode, behind the view. */
export function shared_params<P>(params: P, decode: Decode): AttentionDecodeParams {
  const shared = changetype<AttentionDecodeParams>(changetype<usize>(decode) + offsetof<Decode>());
  shared.batch = params.batch;
  shared.query_heads = params.query_heads;
  shared.kv_heads = params.kv_heads;
  shared.head_dim = params.head_dim;
  shared.value_dim = params.value_dim;
  shared.pages = params.pages;
  shared.page_size = params.page_size;
  shared.max_pages = params.max_pages;
  shared.mask_heads = params.mask_heads;
  shared.queries = params.queries;
  shared.key_pages = params.key_pages;
  shared.key_scale = params.key_scale;
  shared.value_pages = params.value_pages;
  shared.value_scale = params.value_scale;
  shared.page_table = params.page_table;
  shared.lengths = params.lengths;
  shared.sinks = params.sinks;
  shared.slopes = params.slopes;
  shared.mask = params.mask;
  shared.mask_dtype = params.mask_dtype;
  shared.out = params.out;
  shared.lse = params.lse;
  shared.key_pages_dtype = params.key_pages_dtype;
  shared.scale = params.scale;
  shared.soft_cap = params.soft_cap;
  shared.window = params.window;
  return shared;
}
