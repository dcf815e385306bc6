// attention/prefill: out = softmax(softCap(scale q K^T)) V, causal, of many tokens over a paged cache.
//
// Online softmax in f32 over tiles of 64 keys that lie at multiples of 64 from a sequence's first token, so that a row's
// bits depend on nothing but what it sees. A task is about 64 rows (query tokens x heads of one KV head): each tile of
// keys and values is widened once for them (prefill-tile.ts), and 4 rows x 2 vectors of sums stay in registers. Rows of
// one register tile that see different ends of a tile go on alone there: weights of 0 times what they must not see would
// bring in its infinities. Bound by multiply-add.
// Page numbers, offsets and lengths are compared where they are loaded, and used as compared.
import {
  ATTENTION_PREFILL_PORT_LENGTHS,
  ATTENTION_PREFILL_PORT_PAGE_TABLE,
  ATTENTION_PREFILL_PORT_QUERY_OFFSETS,
  AttentionPrefillParams,
  DTYPE_BF16,
  DTYPE_F16,
  DTYPE_F32,
} from "../gen/params";
import { math } from "../lib/exp";
import { align_line, fail, KernelPlan, Status } from "../lib/kernel";
import {
  add_alone,
  KEYS,
  KeyTile,
  key_products,
  pack_keys,
  pack_values,
  ROW_TILE,
  TILE_BYTES,
  value_products,
  weigh_row,
} from "./prefill-tile";

const TASK_ROWS: u32 = 64;
/** Of each query: its sequence or -1, the first token it sees, and the end. */
const QUERY_BYTES: u32 = 12;
const CONTEXT_BYTES: u64 = 256;

@unmanaged
class Prefill {
  params: AttentionPrefillParams;
  queries: usize;
  group: u32;
  /** Tokens and rows of a task; floats of a padded value. */
  tokens: u32;
  rows: u32;
  pitch: u32;
  tile: KeyTile;
  packed: usize;
  panel: usize;
  values: usize;
  logits: usize;
  sums: usize;
  states: usize;
  slot_bytes: u64;
  queries_at: u64;
  slots_at: u64;
  bytes: u64;

  cut(params: AttentionPrefillParams, scratch: usize, slot: u32, slots: u32): void {
    this.params = params;
    this.group = params.query_heads / params.kv_heads;
    this.tokens = max<u32>(1, TASK_ROWS / this.group);
    this.rows = (this.tokens * this.group + ROW_TILE - 1) & ~(ROW_TILE - 1);
    this.pitch = (params.value_dim + 3) & ~3;
    this.queries_at = <u64>slots * CONTEXT_BYTES;
    this.slots_at = align_line(this.queries_at + <u64>params.tokens * QUERY_BYTES);
    const packed_at: u64 = TILE_BYTES;
    const panel_at = align_line(packed_at + <u64>this.rows * params.head_dim * 4);
    const values_at = panel_at + <u64>params.head_dim * KEYS * 4;
    const logits_at = values_at + <u64>this.pitch * KEYS * 4;
    const sums_at = logits_at + <u64>this.rows * KEYS * 4;
    const states_at = align_line(sums_at + <u64>this.rows * this.pitch * 4);
    this.slot_bytes = align_line(states_at + <u64>this.rows * 8);
    this.bytes = this.slots_at + <u64>slots * this.slot_bytes;
    const own = scratch + <usize>(this.slots_at + slot * this.slot_bytes);
    this.queries = scratch + <usize>this.queries_at;
    this.tile = changetype<KeyTile>(own);
    this.packed = own + <usize>packed_at;
    this.panel = own + <usize>panel_at;
    this.values = own + <usize>values_at;
    this.logits = own + <usize>logits_at;
    this.sums = own + <usize>sums_at;
    this.states = own + <usize>states_at;
  }
  sequence(token: u32): i32 {
    return load<i32>(this.queries + token * QUERY_BYTES);
  }
  first(token: u32): u32 {
    return load<u32>(this.queries + token * QUERY_BYTES, 4);
  }
  end(token: u32): u32 {
    return load<u32>(this.queries + token * QUERY_BYTES, 8);
  }
  /** Row r of a run from `token` on is head r % group of its token r / group. */
  row(token: u32, kv_head: u32, r: u32): u32 {
    return (token + r / this.group) * this.params.query_heads + kv_head * this.group + (r % this.group);
  }
}

export function attention_prefill_plan(params: AttentionPrefillParams, slots: u32, out: KernelPlan): void {
  const prefill = changetype<Prefill>(changetype<usize>(out) + offsetof<KernelPlan>());
  prefill.cut(params, 0, 0, slots);
  out.kernel = 0;
  out.phases = params.tokens == 0 ? 0 : 2;
  out.tasks0 = 1;
  out.tasks1 = ((params.tokens + prefill.tokens - 1) / prefill.tokens) * params.kv_heads;
  out.scratch_bytes = <f64>prefill.bytes;
}

export function attention_prefill_task(
  params: AttentionPrefillParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const prefill = changetype<Prefill>(scratch + slot * <usize>CONTEXT_BYTES);
  prefill.cut(params, scratch, slot, slots);
  if (phase == 0) find_queries(prefill, status);
  else attend(prefill, task, status);
}

function find_queries(prefill: Prefill, status: Status): void {
  const params = prefill.params;
  const most = <i32>(params.max_pages * params.page_size);
  const tokens = <i32>params.tokens;
  for (let t: u32 = 0; t < params.tokens; t++) store<i32>(prefill.queries + t * QUERY_BYTES, -1);
  let next = load<i32>(params.query_offsets);
  for (let b: u32 = 0; b < params.batch; b++) {
    const begin = next;
    const end = load<i32>(params.query_offsets + b * 4, 4);
    next = end;
    const length = load<i32>(params.lengths + b * 4);
    const bad_begin = begin < 0 || begin > tokens;
    const bad_end = end < begin || end > tokens;
    if (bad_begin) fail(status, ATTENTION_PREFILL_PORT_QUERY_OFFSETS, b, begin);
    else if (bad_end) fail(status, ATTENTION_PREFILL_PORT_QUERY_OFFSETS, b + 1, end);
    if (bad_begin || bad_end || length < 0 || length > most) continue;
    for (let t = begin; t < end; t++) {
      const seen = length - (end - 1 - t);
      if (seen <= 0) continue;
      const at = prefill.queries + t * QUERY_BYTES;
      store<i32>(at, b);
      store<u32>(at, params.window > 0 && params.window < <u32>seen ? seen - params.window : 0, 4);
      store<i32>(at, seen, 8);
    }
  }
  for (let b: u32 = 0; b < params.batch; b++) {
    const length = load<i32>(params.lengths + b * 4);
    if (length < 0 || length > most) fail(status, ATTENTION_PREFILL_PORT_LENGTHS, b, length);
  }
}

/** The queries of a task, sequence by sequence, for one KV head. */
function attend(prefill: Prefill, task: u32, status: Status): void {
  const params = prefill.params;
  const kv_head = task % params.kv_heads;
  const first = (task / params.kv_heads) * prefill.tokens;
  const end = min(first + prefill.tokens, params.tokens);
  const dtype = params.key_pages_dtype;
  for (let t = first; t < end; ) {
    const sequence = prefill.sequence(t);
    let n: u32 = 1;
    while (t + n < end && prefill.sequence(t + n) == sequence) n++;
    if (sequence < 0) write_nothing(prefill, t, n, kv_head);
    else if (dtype == DTYPE_F32) attend_run<f32>(prefill, t, n, kv_head, status);
    else if (dtype == DTYPE_F16) attend_run<u16>(prefill, t, n, kv_head, status);
    else if (dtype == DTYPE_BF16) attend_run<i16>(prefill, t, n, kv_head, status);
    else attend_run<i8>(prefill, t, n, kv_head, status);
    t += n;
  }
}

function write_nothing(prefill: Prefill, t: u32, n: u32, kv_head: u32): void {
  const params = prefill.params;
  for (let r: u32 = 0; r < n * prefill.group; r++) {
    const row = prefill.row(t, kv_head, r);
    memory.fill(params.out + row * params.value_dim * 4, 0, params.value_dim * 4);
    store<f32>(params.lse + row * 4, -Infinity);
  }
}

function attend_run<T>(prefill: Prefill, t: u32, n: u32, kv_head: u32, status: Status): void {
  const params = prefill.params;
  const rows = n * prefill.group;
  const dim = params.head_dim;
  const pitch = prefill.pitch;
  // Rows that fill up the last tile are 0.
  const filled = (rows + ROW_TILE - 1) & ~(ROW_TILE - 1);
  for (let r: u32 = 0; r < filled; r++) {
    const query = params.queries + prefill.row(t, kv_head, r) * dim * 4;
    const to = prefill.packed + ((r & ~(ROW_TILE - 1)) * dim + (r & (ROW_TILE - 1))) * 4;
    for (let i: u32 = 0; i < dim; i++) store<f32>(to + i * ROW_TILE * 4, r < rows ? load<f32>(query + i * 4) : 0);
    store<f32>(prefill.states + r * 8, -Infinity);
    store<f32>(prefill.states + r * 8, 0, 4);
  }
  memory.fill(prefill.sums, 0, filled * pitch * 4);
  const tile = prefill.tile;
  const seen = prefill.first(t);
  const end = prefill.end(t + n - 1);
  for (let base = seen & ~(KEYS - 1); base < end; base += KEYS) {
    find_keys(prefill, <u32>prefill.sequence(t), kv_head, base, max(base, seen), min(base + KEYS, end), status);
    pack_keys<T>(params.key_pages, params.key_scale, dim, tile, prefill.panel);
    pack_values<T>(params.value_pages, params.value_scale, params.value_dim, pitch, tile, prefill.values);
    for (let r: u32 = 0; r < rows; r += ROW_TILE) attend_rows(prefill, t, base, r, min(ROW_TILE, rows - r));
  }
  for (let r: u32 = 0; r < rows; r++) write_row(prefill, prefill.row(t, kv_head, r), r);
}

/** Where the keys of tokens from..to lie, in a tile that begins with token `base`. */
function find_keys(prefill: Prefill, sequence: u32, kv_head: u32, base: u32, from: u32, to: u32, status: Status): void {
  const params = prefill.params;
  const tile = prefill.tile;
  const page_size = params.page_size;
  for (let k: u32 = 0; k < KEYS; k++) tile.setSlot(k, -1);
  tile.first = from - base;
  tile.end = to - base;
  tile.whole = 1;
  while (from < to) {
    const entry = sequence * params.max_pages + from / page_size;
    const offset = from % page_size;
    const run = min(page_size - offset, to - from);
    const page = load<i32>(params.page_table + entry * 4);
    if (page < 0 || <u32>page >= params.pages) {
      fail(status, ATTENTION_PREFILL_PORT_PAGE_TABLE, entry, page);
      tile.whole = 0;
    } else {
      const slot = (<u32>page * params.kv_heads + kv_head) * page_size + offset;
      for (let i: u32 = 0; i < run; i++) tile.setSlot(from - base + i, slot + i);
    }
    from += run;
  }
}

function within(token: u32, base: u32): u32 {
  return token <= base ? 0 : min(KEYS, token - base);
}

function attend_rows(prefill: Prefill, t: u32, base: u32, r: u32, rows: u32): void {
  const params = prefill.params;
  const pitch = prefill.pitch;
  const group = prefill.group;
  // Ends ascend from token to token, and so do beginnings.
  const first_token = t + r / group;
  const last_token = t + (r + rows - 1) / group;
  const first = within(prefill.first(first_token), base);
  const last = within(prefill.end(last_token), base);
  if (first >= KEYS || last == 0) return;
  const logits = prefill.logits + r * KEYS * 4;
  const sums = prefill.sums + r * pitch * 4;
  key_products(prefill.panel, prefill.packed + r * params.head_dim * 4, params.head_dim, first, last, logits);
  // What all of them see, in the middle.
  const common = within(prefill.first(last_token), base);
  const common_end = within(prefill.end(first_token), base);
  const together = rows > 1 && common < common_end;
  for (let i: u32 = 0; i < ROW_TILE; i++) {
    const weights = logits + i * KEYS * 4;
    // A row that is none weighs nothing.
    if (i >= rows) {
      memory.fill(weights, 0, KEYS * 4);
      continue;
    }
    const token = t + (r + i) / group;
    const from = within(prefill.first(token), base);
    const to = within(prefill.end(token), base);
    if (from >= to) continue;
    const own = sums + i * pitch * 4;
    weigh_row(prefill.tile, from, to, params.scale, params.soft_cap, weights, prefill.states + (r + i) * 8, own, pitch);
    add_alone(weights, prefill.values, pitch, from, together ? common : to, own);
  }
  if (!together) return;
  value_products(logits, prefill.values, pitch, common, common_end, sums);
  for (let i: u32 = 0; i < rows; i++)
    add_alone(
      logits + i * KEYS * 4,
      prefill.values,
      pitch,
      common_end,
      within(prefill.end(t + (r + i) / group), base),
      sums + i * pitch * 4,
    );
}

function write_row(prefill: Prefill, row: u32, r: u32): void {
  const params = prefill.params;
  const dim = params.value_dim;
  const out = params.out + row * dim * 4;
  const largest = load<f32>(prefill.states + r * 8);
  const sum = load<f32>(prefill.states + r * 8, 4);
  const values = prefill.sums + r * prefill.pitch * 4;
  for (let i: u32 = 0; i < dim; i++) store<f32>(out + i * 4, sum == 0 ? 0 : load<f32>(values + i * 4) / sum);
  const base: f32 = largest == -Infinity ? 0 : largest;
  store<f32>(params.lse + row * 4, sum == 0 ? -Infinity : <f32>(<f64>base + math.ln(sum)));
}
