// attention/decode: out = softmax(softCap(scale q K^T)) V over a paged cache, one query per head.
//
// Online softmax (largest, sum, weighted values) in f32, over tiles of 256 tokens (decode-tile.ts); the context of a
// sequence is cut into at most 64 chunks of at least 512 tokens, by its own length only, and their states are joined
// in order: the same bits alone or in a batch, in pages of any size, on any number of threads.
// The query heads of a KV head go four at a time, and K and V are widened once. Bound by multiply-add.
// Page numbers and lengths are compared where they are loaded, and used as compared.
import {
  ATTENTION_DECODE_PORT_LENGTHS,
  ATTENTION_DECODE_PORT_PAGE_TABLE,
  AttentionDecodeParams,
  DTYPE_BF16,
  DTYPE_F16,
  DTYPE_F32,
} from "../gen/params";
import { math } from "../lib/exp";
import { fail, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";
import { chunk_tokens, Decode, decode_of, HEADS, STATE_VALUES, TILE_TOKENS } from "./decode-shape";
import { key_dots, value_sums, weigh, widen_rows } from "./decode-tile";

export function attention_decode_plan(params: AttentionDecodeParams, slots: u32, out: KernelPlan): void {
  const decode = changetype<Decode>(changetype<usize>(out) + offsetof<KernelPlan>());
  decode.cut(params, slots);
  out.kernel = 0;
  out.phases = params.batch == 0 ? 0 : 3;
  out.tasks0 = 1;
  out.tasks1 = params.batch * params.kv_heads * decode.parts;
  out.tasks2 = params.batch * params.kv_heads;
  out.scratch_bytes = <f64>decode.bytes;
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
  const decode = decode_of(params, scratch, slot, slots);
  if (phase == 0) find_ranges(decode, status);
  else if (phase == 1) attend(decode, task, status);
  else join(decode, task);
}

function find_ranges(decode: Decode, status: Status): void {
  const params = decode.params;
  const most = params.max_pages * params.page_size;
  for (let b: u32 = 0; b < params.batch; b++) {
    const range = decode.range(b);
    const length = load<i32>(params.lengths + b * 4);
    store<u64>(range, 0);
    if (length < 0 || <u32>length > most) {
      fail(status, ATTENTION_DECODE_PORT_LENGTHS, b, length);
      continue;
    }
    const window = params.window;
    if (window > 0 && window < <u32>length) store<u32>(range, length - window);
    store<u32>(range, length, 4);
  }
}

/** The chunks of one part of one sequence, for the query heads of one KV head. */
function attend(decode: Decode, task: u32, status: Status): void {
  const params = decode.params;
  const part = task % decode.parts;
  const kv_head = (task / decode.parts) % params.kv_heads;
  const sequence = task / decode.parts / params.kv_heads;
  const first = load<u32>(decode.range(sequence));
  const end = load<u32>(decode.range(sequence), 4);
  const each = chunk_tokens(end - first);
  const chunks = (end - first + each - 1) / each;
  const share = (chunks + decode.parts - 1) / decode.parts;
  const last = min(chunks, (part + 1) * share);
  if (part * share >= last) return;
  prepare_queries(decode, sequence, kv_head);
  for (let chunk = part * share; chunk < last; chunk++) {
    const from = first + chunk * each;
    const to = min(from + each, end);
    const dtype = params.key_pages_dtype;
    if (dtype == DTYPE_F32) attend_chunk<f32>(decode, sequence, kv_head, chunk, from, to, status);
    else if (dtype == DTYPE_F16) attend_chunk<u16>(decode, sequence, kv_head, chunk, from, to, status);
    else if (dtype == DTYPE_BF16) attend_chunk<i16>(decode, sequence, kv_head, chunk, from, to, status);
    else attend_chunk<i8>(decode, sequence, kv_head, chunk, from, to, status);
  }
}

/** The queries of a group, each in whole vectors; the last block is filled up with zeros. */
function prepare_queries(decode: Decode, sequence: u32, kv_head: u32): void {
  const params = decode.params;
  const bytes: usize = params.head_dim * 4;
  const pitch: usize = decode.query_pitch * 4;
  const from = params.queries + (sequence * params.query_heads + kv_head * decode.group) * bytes;
  memory.fill(decode.queries(0), 0, decode.blocks * HEADS * pitch);
  for (let h: u32 = 0; h < decode.group; h++) memory.copy(decode.queries(0) + h * pitch, from + h * bytes, bytes);
}

function attend_chunk<T>(decode: Decode, sequence: u32, kv_head: u32, chunk: u32, first: u32, end: u32, status: Status): void {
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const state = decode.state(sequence, kv_head, block, chunk);
    memory.fill(state, 0, <usize>decode.state_bytes);
    v128.store(state, f32x4.splat(-Infinity));
  }
  while (first < end) {
    const to = min(first + TILE_TOKENS, end);
    const tokens = find_tile(decode, sequence, kv_head, first, to, status);
    first = to;
    if (tokens == 0) continue;
    place_rows<T>(decode, tokens);
    if (decode.wide) attend_wide<T>(decode, sequence, kv_head, chunk, tokens);
    else attend_tile<T>(decode, sequence, kv_head, chunk, tokens);
  }
}

/** Slots of tokens first..end; those in pages that do not exist are left out. Returns how many there are. */
function find_tile(decode: Decode, sequence: u32, kv_head: u32, first: u32, end: u32, status: Status): u32 {
  const params = decode.params;
  const page_size = params.page_size;
  const slots = decode.tile_slots();
  let n: u32 = 0;
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
    for (let i: u32 = 0; i < run; i++, n++) store<u32>(slots + n * 4, slot + i);
  }
  return n;
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
function met_at(i: u32, quarter: u32): u32 {
  return i < 4 * quarter ? (i & 3) * quarter + (i >> 2) : i;
}

function attend_tile<T>(decode: Decode, sequence: u32, kv_head: u32, chunk: u32, tokens: u32): void {
  const params = decode.params;
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const state = decode.state(sequence, kv_head, block, chunk);
    key_dots<T>(decode.keys(), tokens, params.head_dim, decode.queries(block), decode.query_pitch, decode.logits(block));
    weigh(decode, tokens, sizeof<T>() == 1, decode.logits(block), state);
    value_sums<T>(decode.values(), tokens, params.value_dim, decode.logits(block), state + STATE_VALUES, decode.value_pitch);
  }
}

/** All logits first, then all sums: the widened keys make room for the values. */
function attend_wide<T>(decode: Decode, sequence: u32, kv_head: u32, chunk: u32, tokens: u32): void {
  const params = decode.params;
  widen_rows<T>(decode.keys(), tokens, params.head_dim, decode.query_pitch, decode.wide_rows());
  for (let block: u32 = 0; block < decode.blocks; block++) {
    key_dots<f32>(decode.keys(), tokens, decode.query_pitch, decode.queries(block), decode.query_pitch, decode.logits(block));
    weigh(decode, tokens, sizeof<T>() == 1, decode.logits(block), decode.state(sequence, kv_head, block, chunk));
  }
  widen_rows<T>(decode.values(), tokens, params.value_dim, decode.value_pitch, decode.wide_rows());
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const values = decode.state(sequence, kv_head, block, chunk) + STATE_VALUES;
    value_sums<f32>(decode.values(), tokens, decode.value_pitch, decode.logits(block), values, decode.value_pitch);
  }
}

/** Joins the chunks of the heads of one KV head, in order, and the sinks. The first chunk's state takes the result. */
function join(decode: Decode, task: u32): void {
  const params = decode.params;
  const kv_head = task % params.kv_heads;
  const sequence = task / params.kv_heads;
  const tokens = load<u32>(decode.range(sequence), 4) - load<u32>(decode.range(sequence));
  const each = chunk_tokens(tokens);
  const chunks = (tokens + each - 1) / each;
  const bytes: usize = decode.value_pitch * 16;
  const lanes = decode.logits(0);
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const sink = sinks_of(decode, kv_head, block);
    let largest = sink;
    for (let c: u32 = 0; c < chunks; c++) largest = f32x4.max(largest, v128.load(decode.state(sequence, kv_head, block, c)));
    const base = math.base(largest);
    // exp(-Inf) is 0: no sink adds nothing.
    let sum = math.exp(f32x4.sub(sink, base));
    const total = decode.state(sequence, kv_head, block, 0) + STATE_VALUES;
    for (let c: u32 = 0; c < chunks; c++) {
      const state = decode.state(sequence, kv_head, block, c);
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
      write_head(decode, sequence, kv_head * decode.group + block * HEADS + head, lanes + head * 4, total + head * (bytes >> 2), chunks);
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
function sinks_of(decode: Decode, kv_head: u32, block: u32): v128 {
  const params = decode.params;
  const at = decode.logits(0);
  v128.store(at, f32x4.splat(-Infinity));
  if (params.sinks == 0) return v128.load(at);
  const first = kv_head * decode.group + block * HEADS;
  for (let head: u32 = 0; head < HEADS && block * HEADS + head < decode.group; head++)
    store<f32>(at + head * 4, load<f32>(params.sinks + (first + head) * 4));
  return v128.load(at);
}
