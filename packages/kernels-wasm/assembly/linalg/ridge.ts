// linalg/ridge: (X^T X + penalty I) W = X^T Y.
//
// Four phases. Tasks of at least 1024 rows, at most 16 and cut by the shape only, sum the upper part of X^T [X Y]: runs
// of 128 rows are packed as panels of 8 columns (4 KiB), and tiles of 4 columns by a panel run over them with their 8 sums
// in registers; a run's f32 sums are added to the task's f64 ones. These are joined in order, factorised as U^T U, and
// solved for 16 outputs a task, all f64. Bound by multiply-add.
import { LinalgRidgeParams } from "../gen/params";
import { align_line, KernelPlan, line_after, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const RUN_ROWS: u32 = 128;
const TASK_ROWS: u32 = 1024;
const MAX_TASKS: u64 = 16;
/** Sums of all tasks together: beyond this, fewer tasks. */
const SUMS_BYTES: u64 = 64 << 20;
const PANEL: u32 = 8;
const TILE: u32 = 4;
const SOLVE_OUTPUTS: u32 = 16;
const CONTEXT_BYTES: usize = 128;

@unmanaged
class Ridge {
  params: LinalgRidgeParams;
  scratch: usize;
  slot: u32;
  panels: u32;
  tasks: u32;
  task_rows: u32;
  /** f64 of one task's sums: [features][panels * PANEL]. */
  sums: u64;
  sums_at: u64;
  verdict_at: u64;
  run_at: u64;
  run_bytes: u64;
  bytes: u64;

  cut(params: LinalgRidgeParams, slots: u32): void {
    this.params = params;
    this.panels = (params.features + params.outputs + PANEL - 1) / PANEL;
    this.sums = <u64>params.features * this.panels * PANEL;
    const room = <u32>max<u64>(1, min<u64>(MAX_TASKS, SUMS_BYTES / (this.sums * 8)));
    const share = <u32>((<u64>params.rows + room - 1) / room);
    this.task_rows = max(TASK_ROWS, (share + RUN_ROWS - 1) & ~(RUN_ROWS - 1));
    this.tasks = <u32>max<u64>(1, (<u64>params.rows + this.task_rows - 1) / this.task_rows);
    this.sums_at = <u64>slots * CONTEXT_BYTES;
    this.verdict_at = align_line(this.sums_at + room * this.sums * 8);
    this.run_at = this.verdict_at + 64;
    this.run_bytes = align_line(<u64>this.panels * PANEL * RUN_ROWS * 4);
    this.bytes = this.run_at + <u64>slots * this.run_bytes;
  }

  pitch(): usize {
    return <usize>this.panels * PANEL * 8;
  }
  total(task: u32): usize {
    return this.scratch + <usize>this.sums_at + task * (<usize>this.sums * 8);
  }
  run(): usize {
    return this.scratch + <usize>this.run_at + this.slot * <usize>this.run_bytes;
  }
}

export function linalg_ridge_plan(params: LinalgRidgeParams, slots: u32, out: KernelPlan): void {
  const ridge = changetype<Ridge>(line_after(changetype<usize>(out), offsetof<KernelPlan>()));
  ridge.cut(params, slots);
  out.kernel = 0;
  out.phases = 4;
  out.tasks0 = ridge.tasks;
  out.tasks1 = params.features;
  out.tasks2 = 1;
  out.tasks3 = (params.outputs + SOLVE_OUTPUTS - 1) / SOLVE_OUTPUTS;
  out.scratch_bytes = <f64>ridge.bytes;
}

export function linalg_ridge_task(
  params: LinalgRidgeParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const ridge = changetype<Ridge>(scratch + slot * CONTEXT_BYTES);
  ridge.cut(params, slots);
  ridge.scratch = scratch;
  ridge.slot = slot;
  if (phase == 0) add_rows(ridge, task);
  else if (phase == 1) join(ridge, task);
  else if (phase == 2) factorise(ridge);
  else solve(ridge, task * SOLVE_OUTPUTS);
}

function add_rows(ridge: Ridge, task: u32): void {
  const params = ridge.params;
  const features = params.features;
  memory.fill(ridge.total(task), 0, <usize>ridge.sums * 8);
  const first = task * ridge.task_rows;
  const end = min(params.rows, first + ridge.task_rows);
  for (let row = first; row < end; row += RUN_ROWS) {
    const rows = min(RUN_ROWS, end - row);
    pack(ridge, row, rows);
    for (let i: u32 = 0; i < features; i += TILE)
      for (let panel = i / PANEL; panel < ridge.panels; panel++) add_tile(ridge, i, panel, rows, ridge.total(task));
  }
}

/** Rows as panels [panel][row][PANEL]; columns of X, then of Y, then zeros. */
function pack(ridge: Ridge, first: u32, rows: u32): void {
  const params = ridge.params;
  const features = params.features;
  const width = features + params.outputs;
  const to = ridge.run();
  for (let r: u32 = 0; r < rows; r++) {
    const x = params.x + <usize>(first + r) * features * 4;
    const y = params.y + <usize>(first + r) * params.outputs * 4;
    for (let panel: u32 = 0; panel < ridge.panels; panel++) {
      const out = to + <usize>(panel * RUN_ROWS + r) * PANEL * 4;
      const c = panel * PANEL;
      if (c + PANEL <= features) {
        v128.store(out, v128.load(x + c * 4));
        v128.store(out, v128.load(x + c * 4, 16), 16);
        continue;
      }
      for (let j: u32 = 0; j < PANEL; j++) {
        let value: f32 = 0;
        if (c + j < features) value = load<f32>(x + (c + j) * 4);
        else if (c + j < width) value = load<f32>(y + (c + j - features) * 4);
        store<f32>(out + j * 4, value);
      }
    }
  }
}

/** Columns i to i + TILE of X by a panel of columns, over one run. TILE divides PANEL: they lie in one panel. */
function add_tile(ridge: Ridge, i: u32, panel: u32, rows: u32, total: usize): void {
  const packed = ridge.run();
  let left = packed + <usize>((i / PANEL) * RUN_ROWS * PANEL + (i & (PANEL - 1))) * 4;
  let right = packed + <usize>(panel * RUN_ROWS * PANEL) * 4;
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (let r: u32 = 0; r < rows; r++) {
    const x0 = v128.load(right);
    const x1 = v128.load(right, 16);
    const a = v128.load32_splat(left);
    a0 = simd.madd(a, x0, a0);
    a1 = simd.madd(a, x1, a1);
    const b = v128.load32_splat(left, 4);
    b0 = simd.madd(b, x0, b0);
    b1 = simd.madd(b, x1, b1);
    const c = v128.load32_splat(left, 8);
    c0 = simd.madd(c, x0, c0);
    c1 = simd.madd(c, x1, c1);
    const d = v128.load32_splat(left, 12);
    d0 = simd.madd(d, x0, d0);
    d1 = simd.madd(d, x1, d1);
    left += PANEL * 4;
    right += PANEL * 4;
  }
  const features = ridge.params.features;
  const pitch = ridge.pitch();
  const to = total + i * pitch + <usize>panel * PANEL * 8;
  add_sums(to, a0, a1);
  if (i + 1 < features) add_sums(to + pitch, b0, b1);
  if (i + 2 < features) add_sums(to + 2 * pitch, c0, c1);
  if (i + 3 < features) add_sums(to + 3 * pitch, d0, d1);
}

function add_sums(to: usize, low: v128, high: v128): void {
  v128.store(to, f64x2.add(v128.load(to), f64x2.promote_low_f32x4(low)));
  v128.store(to, f64x2.add(v128.load(to, 16), f64x2.promote_low_f32x4(simd.high_pairs(low, low))), 16);
  v128.store(to, f64x2.add(v128.load(to, 32), f64x2.promote_low_f32x4(high)), 32);
  v128.store(to, f64x2.add(v128.load(to, 48), f64x2.promote_low_f32x4(simd.high_pairs(high, high))), 48);
}

/** Row i of the sums of all tasks, in their order, into the first task's. */
function join(ridge: Ridge, i: u32): void {
  const pitch = ridge.pitch();
  const to = ridge.total(0) + i * pitch;
  for (let task: u32 = 1; task < ridge.tasks; task++) {
    const from = ridge.total(task) + i * pitch;
    for (let at: usize = 0; at < pitch; at += 16) v128.store(to + at, f64x2.add(v128.load(to + at), v128.load(from + at)));
  }
  store<f64>(to + i * 8, load<f64>(to + i * 8) + <f64>ridge.params.penalty);
}

/** target[at..end] -= factor * source[at..end], f64 by byte offsets. */
function subtract(target: usize, source: usize, factor: f64, at: usize, end: usize): void {
  const factors = f64x2.splat(factor);
  for (; at + 16 <= end; at += 16) v128.store(target + at, f64x2.sub(v128.load(target + at), f64x2.mul(factors, v128.load(source + at))));
  if (at < end) store<f64>(target + at, load<f64>(target + at) - factor * load<f64>(source + at));
}

/** U^T U in place, row by row. */
function factorise(ridge: Ridge): void {
  const features = ridge.params.features;
  const pitch = ridge.pitch();
  const u = ridge.total(0);
  const verdict = ridge.scratch + <usize>ridge.verdict_at;
  store<u32>(verdict, 0);
  for (let k: u32 = 0; k < features; k++) {
    const row = u + k * pitch;
    const pivot = load<f64>(row + k * 8);
    if (!(pivot > 0 && pivot < Infinity)) return;
    const root = Math.sqrt(pivot);
    for (let j = k; j < features; j++) store<f64>(row + j * 8, load<f64>(row + j * 8) / root);
    for (let i = k + 1; i < features; i++) subtract(u + i * pitch, row, load<f64>(row + i * 8), i * 8, features * 8);
  }
  store<u32>(verdict, 1);
}

/** U^T Z = X^T Y, then U W = Z, for a block of outputs, in their place beside U. */
function solve(ridge: Ridge, first: u32): void {
  const params = ridge.params;
  const features = params.features;
  const outputs = params.outputs;
  const n = min(SOLVE_OUTPUTS, outputs - first);
  const pitch = ridge.pitch();
  const u = ridge.total(0);
  const b = u + <usize>(features + first) * 8;
  const weights = params.weights + first * 4;
  if (load<u32>(ridge.scratch + <usize>ridge.verdict_at) == 0) {
    for (let i: u32 = 0; i < features; i++) for (let c: u32 = 0; c < n; c++) store<f32>(weights + <usize>(i * outputs + c) * 4, NaN);
    return;
  }
  for (let k: u32 = 0; k < features; k++) {
    const from = b + k * pitch;
    divide(from, n, load<f64>(u + k * pitch + k * 8));
    for (let i = k + 1; i < features; i++) subtract(b + i * pitch, from, load<f64>(u + k * pitch + i * 8), 0, n * 8);
  }
  for (let k: i32 = features - 1; k >= 0; k--) {
    const from = b + k * pitch;
    divide(from, n, load<f64>(u + k * pitch + k * 8));
    for (let i: i32 = 0; i < k; i++) subtract(b + i * pitch, from, load<f64>(u + i * pitch + k * 8), 0, n * 8);
    for (let c: u32 = 0; c < n; c++) store<f32>(weights + <usize>(k * outputs + c) * 4, <f32>load<f64>(from + c * 8));
  }
}

function divide(row: usize, n: u32, by: f64): void {
  for (let c: u32 = 0; c < n; c++) store<f64>(row + c * 8, load<f64>(row + c * 8) / by);
}
