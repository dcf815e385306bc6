// A decode step over a context of tokens, shared by attention/decode and its siblings: tiles, chunks and the join.
//
// What a unit of heads sees, and in which order, is a whole context or a list (decode-shape.ts); chunks are cut by the
// number of these tokens only, so the same tokens in the same order give the same bits.
import { ATTENTION_DECODE_PORT_LENGTHS, ATTENTION_DECODE_PORT_PAGE_TABLE, DTYPE_BF16, DTYPE_F16, DTYPE_F32 } from "../gen/params";
import { math } from "../lib/exp";
import { fail, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";
import { find_bias } from "./decode-bias";
import { begin_list, find_listed } from "./decode-lists";
import { add_masses, begin_masses, find_pieces, write_masses } from "./decode-masses";
import { chunk_tokens, Decode, HEADS, LISTED, STATE_VALUES, TILE_TOKENS, WEIGHED } from "./decode-shape";
import { key_dots, scale_weights, value_sums, weigh, widen_rows } from "./decode-tile";

/** Three phases, the first of so many tasks. */
export function plan_decode(decode: Decode, first: u32, out: KernelPlan): void {
  const batch = decode.params.batch;
  out.kernel = 0;
  out.phases = batch == 0 ? 0 : 3;
  out.tasks0 = first;
  out.tasks1 = batch * decode.units * decode.parts;
  out.tasks2 = batch * decode.units;
  out.scratch_bytes = <f64>decode.bytes;
}

/** What each sequence sees of its context, first and end; of one whose length is out of range -1. */
export function find_ranges(decode: Decode, status: Status): void {
  for (let b: u32 = 0; b < decode.params.batch; b++) find_range(decode, b, decode.range(b), status);
}

export function find_range(decode: Decode, sequence: u32, range: usize, status: Status): void {
  const params = decode.params;
  const length = load<i32>(params.lengths + sequence * 4);
  if (length < 0 || <u32>length > params.max_pages * params.page_size) {
    store<i32>(range, -1);
    store<i32>(range, -1, 4);
    fail(status, ATTENTION_DECODE_PORT_LENGTHS, sequence, length);
    return;
  }
  const window = params.window;
  store<u32>(range, window > 0 && window < <u32>length ? length - window : 0);
  store<u32>(range, length, 4);
}

/** The chunks of one part of one sequence, for the query heads of one unit. */
export function attend(decode: Decode, task: u32, status: Status): void {
  const params = decode.params;
  const part = task % decode.parts;
  const unit = (task / decode.parts) % decode.units;
  const sequence = task / decode.parts / decode.units;
  const tokens = decode.tokens(sequence, unit);
  const each = chunk_tokens(tokens);
  const chunks = (tokens + each - 1) / each;
  const share = (chunks + decode.parts - 1) / decode.parts;
  const last = min(chunks, (part + 1) * share);
  if (part * share >= last) return;
  prepare_queries(decode, sequence, unit);
  for (let chunk = part * share; chunk < last; chunk++) {
    begin_chunk(decode, sequence, unit, chunk, each, tokens);
    const dtype = params.key_pages_dtype;
    if (dtype == DTYPE_F32) attend_chunk<f32>(decode, sequence, unit, chunk, status);
    else if (dtype == DTYPE_F16) attend_chunk<u16>(decode, sequence, unit, chunk, status);
    else if (dtype == DTYPE_BF16) attend_chunk<i16>(decode, sequence, unit, chunk, status);
    else attend_chunk<i8>(decode, sequence, unit, chunk, status);
  }
}

/** The queries of a group, each in whole vectors; the last block is filled up with zeros. */
function prepare_queries(decode: Decode, sequence: u32, unit: u32): void {
  const params = decode.params;
  const bytes: usize = params.head_dim * 4;
  const pitch: usize = decode.query_pitch * 4;
  const from = params.queries + (sequence * params.query_heads + unit * decode.group) * bytes;
  memory.fill(decode.queries(0), 0, decode.blocks * HEADS * pitch);
  for (let h: u32 = 0; h < decode.group; h++) memory.copy(decode.queries(0) + h * pitch, from + h * bytes, bytes);
}

function begin_chunk(decode: Decode, sequence: u32, unit: u32, chunk: u32, each: u32, tokens: u32): void {
  decode.left = min(each, tokens - chunk * each);
  if (decode.kind == LISTED) {
    begin_list(decode, decode.list_of(sequence, unit), chunk);
    return;
  }
  decode.offset = load<u32>(decode.range(sequence)) + chunk * each;
  if (decode.kind == WEIGHED) begin_masses(decode, sequence, unit, chunk);
}

function attend_chunk<T>(decode: Decode, sequence: u32, unit: u32, chunk: u32, status: Status): void {
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const state = decode.state(sequence, unit, block, chunk);
    memory.fill(state, 0, <usize>decode.state_bytes);
    v128.store(state, f32x4.splat(-Infinity));
  }
  while (decode.left > 0) {
    const tokens = find_tile(decode, sequence, unit, status);
    if (tokens == 0) continue;
    place_rows<T>(decode, tokens);
    if (decode.wide) attend_wide<T>(decode, sequence, unit, chunk, tokens);
    else attend_tile<T>(decode, sequence, unit, chunk, tokens);
  }
}

/** Slots of the next tokens, at most a tile; those in pages that do not exist are left out. Returns how many there are. */
function find_tile(decode: Decode, sequence: u32, unit: u32, status: Status): u32 {
  const kv_head = decode.kv_head(unit);
  if (decode.kind == LISTED) return find_listed(decode, sequence, kv_head, decode.list_of(sequence, unit), status);
  const first = decode.offset;
  const end = first + min(TILE_TOKENS, decode.left);
  decode.offset = end;
  decode.left -= end - first;
  const tokens = add_tokens(decode, sequence, kv_head, first, end, 0, status);
  if (decode.kind == WEIGHED) find_pieces(decode, tokens);
  return tokens;
}

/** Slots of tokens first..end, behind the n in the tile. Returns how many it has then. */
export function add_tokens(decode: Decode, sequence: u32, kv_head: u32, first: u32, end: u32, n: u32, status: Status): u32 {
  const params = decode.params;
  const page_size = params.page_size;
  const slots = decode.tile_slots();
  while (first < end) {
    const entry = sequence * params.max_pages + first / page_size;
    const offset = first % page_size;
    const run = min(page_size - offset, end - first);
    const page = load<i32>(params.page_table + entry * 4);
    first += run;
    if (page < 0 || <u32>page >= params.pages) {
      fail(status, ATTENTION_DECODE_PORT_PAGE_TABLE, entry, page);
      continue;
    }
    const slot = (<u32>page * params.kv_heads + kv_head) * page_size + offset;
    if (decode.kind == WEIGHED) number_granules(decode, first - run, run, n);
    if (decode.biased()) for (let i: u32 = 0; i < run; i++) store<u32>(decode.tile_places() + (n + i) * 4, first - run + i);
    for (let i: u32 = 0; i < run; i++, n++) store<u32>(slots + n * 4, slot + i);
  }
  return n;
}

/** The granules of so many tokens, from the n-th of the tile on. */
function number_granules(decode: Decode, token: u32, count: u32, n: u32): void {
  let granule = token / decode.granularity;
  let rest = decode.granularity - (token % decode.granularity);
  for (let at = decode.tile_granules() + n * 4, end = at + count * 4; at < end; at += 4) {
    store<u32>(at, granule);
    if (--rest == 0) {
      granule++;
      rest = decode.granularity;
    }
  }
}

/** Two rows meet the queries side by side, each pair from two of four quarters: prefetchers follow streams that lie apart. */
function place_rows<T>(decode: Decode, tokens: u32): void {
  const params = decode.params;
  const slots = decode.tile_slots();
  const quarter = tokens >> 2;
  const keys = decode.keys();
  const values = decode.values();
  const key_pages = params.key_pages;
  const value_pages = params.value_pages;
  const key_bytes: usize = params.head_dim * sizeof<T>();
  const value_bytes: usize = params.value_dim * sizeof<T>();
  for (let i: u32 = 0; i < tokens; i++) {
    const slot = load<u32>(slots + met_at(i, quarter) * 4);
    store<usize>(keys + i * 4, key_pages + slot * key_bytes);
    store<usize>(values + i * 4, value_pages + slot * value_bytes);
  }
  if (tokens & 1) store<usize>(keys + tokens * 4, load<usize>(keys + tokens * 4 - 4));
  if (sizeof<T>() == 1) place_scales(decode, tokens, quarter);
}

function place_scales(decode: Decode, tokens: u32, quarter: u32): void {
  const slots = decode.tile_slots();
  const key_scales = decode.key_scales();
  const value_scales = decode.value_scales();
  const key_scale = decode.params.key_scale;
  const value_scale = decode.params.value_scale;
  for (let i: u32 = 0; i < tokens; i++) {
    const slot = load<u32>(slots + met_at(i, quarter) * 4);
    store<f32>(key_scales + i * 4, load<f32>(key_scale + slot * 4));
    store<f32>(value_scales + i * 4, load<f32>(value_scale + slot * 4));
  }
}

/** Which token of a tile is met as the i-th. */
export function met_at(i: u32, quarter: u32): u32 {
  return i < 4 * quarter ? (i & 3) * quarter + (i >> 2) : i;
}

function attend_tile<T>(decode: Decode, sequence: u32, unit: u32, chunk: u32, tokens: u32): void {
  const params = decode.params;
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const state = decode.state(sequence, unit, block, chunk);
    key_dots<T>(decode.keys(), tokens, params.head_dim, decode.queries(block), decode.query_pitch, decode.logits(block));
    weigh_tile<T>(decode, sequence, unit, block, chunk, tokens);
    value_sums<T>(decode.values(), tokens, params.value_dim, decode.logits(block), state + STATE_VALUES, decode.value_pitch);
  }
}

function weigh_tile<T>(decode: Decode, sequence: u32, unit: u32, block: u32, chunk: u32, tokens: u32): void {
  const scaled = sizeof<T>() == 1;
  const logits = decode.logits(block);
  const state = decode.state(sequence, unit, block, chunk);
  const bias = decode.biased() ? find_bias(decode, sequence, unit, block, tokens) : 0;
  weigh(decode, tokens, scaled, decode.kind == WEIGHED, bias, logits, state);
  if (decode.kind != WEIGHED) return;
  add_masses(decode, decode.mass(sequence, unit, block), chunk, logits, v128.load(state));
  if (scaled) scale_weights(decode, tokens, logits);
}

/** All logits first, then all sums: the widened keys make room for the values. */
function attend_wide<T>(decode: Decode, sequence: u32, unit: u32, chunk: u32, tokens: u32): void {
  const params = decode.params;
  widen_rows<T>(decode.keys(), tokens, params.head_dim, decode.query_pitch, decode.wide_rows());
  for (let block: u32 = 0; block < decode.blocks; block++) {
    key_dots<f32>(decode.keys(), tokens, decode.query_pitch, decode.queries(block), decode.query_pitch, decode.logits(block));
    weigh_tile<T>(decode, sequence, unit, block, chunk, tokens);
  }
  widen_rows<T>(decode.values(), tokens, params.value_dim, decode.value_pitch, decode.wide_rows());
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const values = decode.state(sequence, unit, block, chunk) + STATE_VALUES;
    value_sums<f32>(decode.values(), tokens, decode.value_pitch, decode.logits(block), values, decode.value_pitch);
  }
}

/** Joins the chunks of the heads of one unit, in order, and the sinks. The first chunk's state takes the result. */
export function join(decode: Decode, task: u32): void {
  const unit = task % decode.units;
  const sequence = task / decode.units;
  const tokens = decode.tokens(sequence, unit);
  const each = chunk_tokens(tokens);
  const chunks = (tokens + each - 1) / each;
  const bytes: usize = decode.value_pitch * 16;
  const lanes = decode.logits(0);
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const sink = sinks_of(decode, unit, block);
    let largest = sink;
    for (let c: u32 = 0; c < chunks; c++) largest = f32x4.max(largest, v128.load(decode.state(sequence, unit, block, c)));
    const base = math.base(largest);
    // exp(-Inf) is 0: no sink adds nothing.
    let sum = math.exp(f32x4.sub(sink, base));
    const total = decode.state(sequence, unit, block, 0) + STATE_VALUES;
    for (let c: u32 = 0; c < chunks; c++) {
      const state = decode.state(sequence, unit, block, c);
      const weights = math.exp(f32x4.sub(v128.load(state), base));
      sum = f32x4.add(sum, f32x4.mul(weights, v128.load(state, 16)));
      v128.store(lanes, weights);
      for (let head: usize = 0; head < HEADS; head++) {
        const by = v128.load32_splat(lanes + head * 4);
        const from = state + STATE_VALUES + head * (bytes >> 2);
        const to = total + head * (bytes >> 2);
        for (let i: usize = 0; i < bytes >> 2; i += 16) {
          const added = c == 0 ? f32x4.splat(0) : v128.load(to + i);
          v128.store(to + i, simd.madd(by, v128.load(from + i), added));
        }
      }
    }
    v128.store(lanes, sum);
    v128.store(lanes, base, 16);
    for (let head: u32 = 0; head < HEADS && block * HEADS + head < decode.group; head++)
      write_head(decode, sequence, unit * decode.group + block * HEADS + head, lanes + head * 4, total + head * (bytes >> 2), chunks);
    if (decode.kind == WEIGHED) write_masses(decode, sequence, unit, block, chunks, each, base, sum);
  }
}

/** `sums`: the head's sum, and 16 bytes further what its logits are relative to. */
function write_head(decode: Decode, sequence: u32, head: u32, sums: usize, values: usize, chunks: u32): void {
  const params = decode.params;
  const row = sequence * params.query_heads + head;
  const out = params.out + row * params.value_dim * 4;
  const sum = load<f32>(sums);
  const nothing = sum == 0;
  for (let i: u32 = 0; i < params.value_dim; i++) store<f32>(out + i * 4, nothing || chunks == 0 ? 0 : load<f32>(values + i * 4) / sum);
  store<f32>(params.lse + row * 4, nothing ? -Infinity : <f32>(<f64>load<f32>(sums, 16) + math.ln(sum)));
}

/** The sinks of a block of heads; -Inf where there is none. */
function sinks_of(decode: Decode, unit: u32, block: u32): v128 {
  const params = decode.params;
  const at = decode.logits(0);
  v128.store(at, f32x4.splat(-Infinity));
  if (params.sinks == 0) return v128.load(at);
  const first = unit * decode.group + block * HEADS;
  for (let head: u32 = 0; head < HEADS && block * HEADS + head < decode.group; head++)
    store<f32>(at + head * 4, load<f32>(params.sinks + (first + head) * 4));
  return v128.load(at);
}
