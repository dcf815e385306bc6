// model/linear: out = x weight^T + bias + residual.
//
// Up to 2 tokens ("rows"): 4 rows of weights are read once, where they lie, side by side, and meet each vector; q8_0
// sums a block, then multiplies by its scale. More ("panel"): linear-panel.ts, columns in runs of 256. All in f32; no sum
// depends on the other tokens or on the threads. A task is 64 rows or 256 KiB of weights: 20 us of one core. Bound by
// multiply-add, and by widening where weights are not f32.
import { DTYPE_BF16, DTYPE_F16, DTYPE_F32, ModelLinearParams } from "../gen/params";
import { align_line, KernelPlan, Status } from "../lib/kernel";
import { Q8, Q8_BYTES, q8 } from "../lib/q8";
import { simd } from "../lib/simd";
import { Blocks, PANEL_COLUMNS, PANEL_ROWS, pack_weights, panel_sums, row_bytes, TOKEN_TILE } from "./linear-panel";

const FEW_TOKENS: u32 = 2;
const TASK_BYTES: u32 = 256 << 10;

export function model_linear_plan(params: ModelLinearParams, slots: u32, out: KernelPlan): void {
  const few = params.tokens <= FEW_TOKENS;
  const each = task_rows(params);
  const tasks = <u32>((<u64>params.out_dim + each - 1) / each);
  out.kernel = few ? 0 : 1;
  out.phases = params.tokens == 0 ? 0 : few ? 1 : 2;
  out.tasks0 = few ? tasks : token_tiles(params);
  out.tasks1 = tasks;
  // The rests of rows, one for each slot, are needed by both.
  out.scratch_bytes = few ? 64 * <f64>slots : <f64>packed_bytes(params) + <f64>slots * <f64>slot_bytes(params);
}

export function model_linear_task(
  params: ModelLinearParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_rows(params);
  const first = task * each;
  const end = min(first + each, params.out_dim);
  const dtype = params.weight_dtype;
  if (params.tokens <= FEW_TOKENS) {
    const rest = scratch + slot * 64;
    if (dtype == DTYPE_F32) run_rows<f32>(params, first, end, rest);
    else if (dtype == DTYPE_F16) run_rows<u16>(params, first, end, rest);
    else if (dtype == DTYPE_BF16) run_rows<i16>(params, first, end, rest);
    else run_rows<Blocks>(params, first, end, rest);
    return;
  }
  if (phase == 0) {
    pack_tokens(params, task, scratch);
    return;
  }
  const own = scratch + <usize>packed_bytes(params) + slot * <usize>slot_bytes(params);
  for (let row = first; row < end; row += PANEL_ROWS) {
    if (dtype == DTYPE_F32) run_panel<f32>(params, row, scratch, own);
    else if (dtype == DTYPE_F16) run_panel<u16>(params, row, scratch, own);
    else if (dtype == DTYPE_BF16) run_panel<i16>(params, row, scratch, own);
    else run_panel<Blocks>(params, row, scratch, own);
  }
}

function task_rows(params: ModelLinearParams): u32 {
  if (params.tokens > FEW_TOKENS) return 64;
  const dtype = params.weight_dtype;
  const bytes =
    dtype == DTYPE_F32
      ? row_bytes<f32>(params)
      : dtype == DTYPE_F16 || dtype == DTYPE_BF16
        ? row_bytes<u16>(params)
        : row_bytes<Blocks>(params);
  return max<u32>(4, <u32>(TASK_BYTES / bytes) & ~3);
}
function token_tiles(params: ModelLinearParams): u32 {
  return (params.tokens + TOKEN_TILE - 1) / TOKEN_TILE;
}
function packed_bytes(params: ModelLinearParams): u64 {
  return align_line(<u64>token_tiles(params) * TOKEN_TILE * params.in_dim * 4);
}
/** Of each slot: a panel, the sums of all tokens, the rest of a row. */
function slot_bytes(params: ModelLinearParams): u64 {
  return PANEL_COLUMNS * PANEL_ROWS * 4 + align_line(<u64>token_tiles(params) * TOKEN_TILE * PANEL_ROWS * 4) + 64;
}

function run_rows<T>(params: ModelLinearParams, first: u32, end: u32, rest: usize): void {
  const bytes = row_bytes<T>(params);
  for (let token: u32 = 0; token < params.tokens; token++) {
    const x = params.x + token * params.in_dim * 4;
    for (let row = first; row < end; row += 4) {
      const a = params.weight + row * bytes;
      // Rows that are not there are the last one once more.
      const b = row + 1 < end ? a + bytes : a;
      const c = row + 2 < end ? b + bytes : b;
      const d = row + 3 < end ? c + bytes : c;
      let sums = sizeof<T>() == 8 ? block_sums(a, b, c, d, x, params.in_dim) : row_sums<T>(a, b, c, d, x, params.in_dim, rest);
      const n = min<u32>(4, end - row);
      v128.store(rest, sums);
      for (let r: u32 = 0; r < n; r++) put(params, token, row + r, load<f32>(rest + r * 4));
    }
  }
}

function put(params: ModelLinearParams, token: u32, row: u32, sum: f32): void {
  const at = (token * params.out_dim + row) * 4;
  if (params.bias) sum += load<f32>(params.bias + row * 4);
  if (params.residual) sum += load<f32>(params.residual + at);
  store<f32>(params.out + at, sum);
}

/** Dot products of four rows with a vector. `rest` [64 bytes] takes the ends of rows. */
function row_sums<T>(a: usize, b: usize, c: usize, d: usize, x: usize, dim: u32, rest: usize): v128 {
  const step: usize = 4 * sizeof<T>();
  let s = f32x4.splat(0);
  let t = s;
  let u = s;
  let v = s;
  let end = x + (dim & ~3) * 4;
  for (; x < end; x += 16) {
    const y = v128.load(x);
    s = simd.madd(simd.load<T>(a), y, s);
    t = simd.madd(simd.load<T>(b), y, t);
    u = simd.madd(simd.load<T>(c), y, u);
    v = simd.madd(simd.load<T>(d), y, v);
    a += step;
    b += step;
    c += step;
    d += step;
  }
  const left = dim & 3;
  if (left) {
    v128.store(rest, f32x4.splat(0));
    memory.copy(rest, x, left * 4);
    const y = v128.load(rest);
    s = simd.madd(ending<T>(a, left, rest), y, s);
    t = simd.madd(ending<T>(b, left, rest), y, t);
    u = simd.madd(ending<T>(c, left, rest), y, u);
    v = simd.madd(ending<T>(d, left, rest), y, v);
  }
  return simd.sum4(s, t, u, v);
}

function ending<T>(row: usize, left: u32, rest: usize): v128 {
  v128.store(rest, f32x4.splat(0), 16);
  memory.copy(rest + 16, row, left * sizeof<T>());
  return simd.load<T>(rest + 16);
}

/** The same of q8_0, block by block. */
function block_sums(a: usize, b: usize, c: usize, d: usize, x: usize, dim: u32): v128 {
  let s = f32x4.splat(0);
  let t = s;
  let u = s;
  let v = s;
  for (const end = x + dim * 4; x < end; x += Q8 * 4) {
    s = simd.madd(q8.scale(a), q8.dot(a, x), s);
    t = simd.madd(q8.scale(b), q8.dot(b, x), t);
    u = simd.madd(q8.scale(c), q8.dot(c, x), u);
    v = simd.madd(q8.scale(d), q8.dot(d, x), v);
    a += Q8_BYTES;
    b += Q8_BYTES;
    c += Q8_BYTES;
    d += Q8_BYTES;
  }
  return simd.sum4(s, t, u, v);
}

/** A tile of vectors as [in_dim][TOKEN_TILE]; those that are not there are 0. */
function pack_tokens(params: ModelLinearParams, tile: u32, packed: usize): void {
  const dim = params.in_dim;
  const to = packed + tile * TOKEN_TILE * dim * 4;
  for (let q: u32 = 0; q < TOKEN_TILE; q++) {
    const token = tile * TOKEN_TILE + q;
    const there = token < params.tokens;
    const x = params.x + token * dim * 4;
    for (let i: u32 = 0; i < dim; i++) store<f32>(to + i * 16 + q * 4, there ? load<f32>(x + i * 4) : 0);
  }
}

/** PANEL_ROWS rows from `row` on, for all tokens; their sums wait between runs of columns. */
function run_panel<T>(params: ModelLinearParams, row: u32, packed: usize, panel: usize): void {
  const dim = params.in_dim;
  const tiles = token_tiles(params);
  const rows = min(PANEL_ROWS, params.out_dim - row);
  const partial = panel + PANEL_COLUMNS * PANEL_ROWS * 4;
  const rest = partial + <usize>align_line(<u64>tiles * TOKEN_TILE * PANEL_ROWS * 4);
  for (let first: u32 = 0; first < dim; first += PANEL_COLUMNS) {
    const end = min(first + PANEL_COLUMNS, dim);
    pack_weights<T>(params, row, rows, first, end, panel, rest);
    for (let t: u32 = 0; t < tiles; t++)
      panel_sums(panel, packed + (t * dim + first) * TOKEN_TILE * 4, end - first, first > 0, partial + t * TOKEN_TILE * PANEL_ROWS * 4);
  }
  for (let t: u32 = 0; t < params.tokens; t++) {
    const from = partial + t * PANEL_ROWS * 4;
    for (let r: u32 = 0; r < rows; r++) put(params, t, row + r, load<f32>(from + r * 4));
  }
}
