// What an engine must compute rightly before this build is used: TypeScript calls it once, with zeroed memory.
// An engine may accept an instruction and get it wrong.
import { DTYPE_F32, DTYPE_I8, SEARCH_SCAN_METRIC_IP, SearchScanParams } from "../gen/params";
import { search_scan_plan, search_scan_task } from "../search/scan";
import { KernelPlan, line_after, PLAN_ROOM, Status } from "./kernel";
import { simd } from "./simd";

/** Bytes that a check may use. */
export const check_bytes: u32 = 1 << 16;

const COUNT: u32 = 43;
const DIM: u32 = 21;
const RESULTS: u32 = 4;

/** 0, or the number of the check that failed. */
export function self_check(memory: usize): u32 {
  if (!multiplies_and_adds()) return 1;
  if (!keeps_f64_apart()) return 2;
  for (let batch: u32 = 1; batch <= 14; batch += 13) {
    if (!scans(memory, batch, DTYPE_F32)) return 3;
    if (!scans(memory, batch, DTYPE_I8)) return 4;
  }
  return 0;
}

/** madd is right to one rounding, fused or not; sums of integer products are exact; f16 bits have their values. */
function multiplies_and_adds(): bool {
  for (let i = 1; i < 40; i++) {
    const a = <f32>i * 0.37 - 5;
    const b = <f32>i * -0.91 + 11;
    const c = <f32>i * 0.05;
    const found = f32x4.extract_lane(simd.madd(f32x4.splat(a), f32x4.splat(b), f32x4.splat(c)), 2);
    const exact = <f64>a * <f64>b + <f64>c;
    if (!(abs(<f64>found - exact) <= 1.2e-7 * (abs(<f64>a * <f64>b) + abs(<f64>c)))) return false;
    const products = simd.madd_terms<i8>(i16x8(<i16>i, 2, -3, 4, 100, -128, 7, 8), i16x8.splat(-32767), i32x4.splat(i));
    if (i32x4.extract_lane(products, 0) != -32767 * (i + 2) + i) return false;
    if (i32x4.extract_lane(products, 2) != 32767 * 28 + i) return false;
  }
  // 1.5, the least subnormal, -65504, Inf.
  const half = simd.widen_f16(i32x4(0x3e00, 0x0001, <i32>0xfffffbff, 0x7c00));
  if (f32x4.extract_lane(half, 0) != 1.5 || f32x4.extract_lane(half, 1) != 5.9604644775390625e-8) return false;
  return f32x4.extract_lane(half, 2) == -65504 && f32x4.extract_lane(half, 3) == Infinity;
}

/** Canonical sums round products before they add: (1 + 2^-30)^2 - 1 loses its last term. */
function keeps_f64_apart(): bool {
  const x = f64x2.splat(1 + 9.313225746154785e-10);
  return f64x2.extract_lane(f64x2.add(f64x2.mul(x, x), f64x2.splat(-1)), 1) == 1.862645149230957e-9;
}

/** A small search over small integers, whose scores are exact, compared with the plainest loop. */
function scans(memory: usize, batch: u32, dtype: u32): bool {
  const params = changetype<SearchScanParams>(memory);
  const plan = changetype<KernelPlan>(line_after(memory, offsetof<SearchScanParams>()));
  const status = changetype<Status>(line_after(changetype<usize>(plan), offsetof<KernelPlan>() + PLAN_ROOM));
  params.batch = batch;
  params.count = COUNT;
  params.dim = params.rows_pitch = DIM;
  params.k = RESULTS;
  params.metric = SEARCH_SCAN_METRIC_IP;
  params.rows_dtype = dtype;
  params.queries = line_after(changetype<usize>(status), offsetof<Status>());
  params.rows = line_after(params.queries, batch * DIM * 4);
  params.row_scale = line_after(params.rows, COUNT * DIM * 4);
  params.ids = line_after(params.row_scale, COUNT * 4);
  params.scores = line_after(params.ids, batch * RESULTS * 4);
  params.found = line_after(params.scores, batch * RESULTS * 4);
  params.filter = 0;
  const scratch = line_after(params.found, batch * 4);
  for (let i: u32 = 0; i < batch * DIM; i++) store<f32>(params.queries + i * 4, <f32>value(i * 7 + 3));
  for (let i: u32 = 0; i < COUNT * DIM; i++) {
    if (dtype == DTYPE_F32) store<f32>(params.rows + i * 4, <f32>value(i * 5));
    else store<i8>(params.rows + i, <i8>value(i * 5));
  }
  for (let i: u32 = 0; i < COUNT; i++) store<f32>(params.row_scale + i * 4, 1);
  if (dtype == DTYPE_F32) params.row_scale = 0;
  search_scan_plan(params, 1, plan);
  if (plan.phases != 1 || scratch + <usize>plan.scratch_bytes > memory + check_bytes) return false;
  for (let task: u32 = 0; task < plan.tasks0; task++) search_scan_task(params, scratch, 0, task, 0, 1, status);
  for (let query: u32 = 0; query < batch; query++) {
    if (load<u32>(params.found + query * 4) != RESULTS) return false;
    for (let at: u32 = 0; at < RESULTS; at++) {
      const place = (query * RESULTS + at) * 4;
      const row = load<u32>(params.ids + place);
      const score = product(query, row);
      if (load<f32>(params.scores + place) != <f32>score || rank(query, row, score) != at) return false;
    }
  }
  return true;
}

/** How many rows come before this one. */
function rank(query: u32, row: u32, score: i32): u32 {
  let before: u32 = 0;
  for (let other: u32 = 0; other < COUNT; other++) {
    const its = product(query, other);
    if (its > score || (its == score && other < row)) before++;
  }
  return before;
}

function product(query: u32, row: u32): i32 {
  let sum = 0;
  for (let i: u32 = 0; i < DIM; i++) sum += value((query * DIM + i) * 7 + 3) * value((row * DIM + i) * 5);
  return sum;
}

/** -12 to 12, without order. */
function value(i: u32): i32 {
  return <i32>(((i * 2654435761) >> 16) % 25) - 12;
}
