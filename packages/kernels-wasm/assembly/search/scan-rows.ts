// A block of rows on its way through the kernel: which rows, where they lie, and what turns their raw dot products
// into approximate scores with bounds.
import { SEARCH_SCAN_METRIC_COS, SEARCH_SCAN_METRIC_IP, SearchScanParams } from "../gen/params";
import { simd } from "../lib/simd";
import { push_row, Reservoir } from "./scan-reservoir";
import { Scan } from "./scan-shape";

/** Rows of a block: enough that what is done once a block costs little, and 16 KiB of 128 floats stay in the L1. */
export const BLOCK_ROWS: u32 = 32;
/** Bytes of one array of a block, and of a block. */
const LINE: usize = BLOCK_ROWS * 4;
export const ROW_BLOCK_BYTES: u64 = 64 + 7 * LINE;

/**
 * A count, then arrays [32]: row numbers u32, addresses, squares |row|^2 f32 (of i8 rows before scaling); and f32
 * terms: score = dot * factor + term;  error = norm * query factor + error + query constant
 */
@unmanaged
export class RowBlock {
  /** Rows in use; up to the next multiple of 8 they repeat the last one. */
  n: u32;

  numbers(): usize {
    return changetype<usize>(this) + 64;
  }
  addresses(): usize {
    return changetype<usize>(this) + 64 + LINE;
  }
  squares(): usize {
    return changetype<usize>(this) + 64 + 2 * LINE;
  }
  fill_squares(square: f32): void {
    for (let i: usize = 0; i < LINE; i += 16) v128.store(this.squares() + i, f32x4.splat(square));
  }
  /** Then terms, norms and errors, LINE apart. */
  factors(): usize {
    return changetype<usize>(this) + 64 + 3 * LINE;
  }
}

/** Roundings of a sum of dim products in any order, of the norm, and of what follows, with room to spare. */
export function error_unit(dim: u32): f32 {
  return <f32>(dim + 16) * ROUNDING;
}
// 1.02 * 2^-24, and the least f32 that keeps all bits of a square.
const ROUNDING: f32 = reinterpret<f32>(0x33828000);

/** Collects up to 32 rows from `next` on that pass the filter; returns where to go on, or `end`. */
export function next_rows(params: SearchScanParams, next: u32, end: u32, block: RowBlock, element: u32): u32 {
  const numbers = block.numbers();
  const filter = params.filter;
  let n: u32 = 0;
  if (filter == 0) {
    n = min(BLOCK_ROWS, end - next);
    const rows = i32x4.add(i32x4.splat(next), i32x4(0, 1, 2, 3));
    for (let i: u32 = 0; i < n; i += 4) v128.store(numbers + i * 4, i32x4.add(rows, i32x4.splat(i)));
    next += n;
  } else {
    while (n < BLOCK_ROWS && next < end) {
      const word = load<u32>(filter + ((next >> 5) << 2)) >> (next & 31);
      // To the next bit that is set, or the next word.
      next = word == 0 ? (next | 31) + 1 : next + ctz(word);
      if (word == 0 || next >= end) continue;
      store<u32>(numbers + n++ * 4, next++);
    }
    next = min(next, end);
  }
  block.n = n;
  if (n == 0) return next;
  const last = load<u32>(numbers + (n - 1) * 4);
  for (let i = n; (i & 7) != 0; i++) store<u32>(numbers + i * 4, last);
  const addresses = block.addresses();
  const pitch = i32x4.splat(params.rows_pitch * element);
  const first = i32x4.splat(params.rows);
  for (let i: usize = 0; i < n * 4; i += 16) v128.store(addresses + i, i32x4.add(first, i32x4.mul(v128.load(numbers + i), pitch)));
  return next;
}

/** Fills factors, terms, norms and errors of the rows from..to, multiples of 4, from their squares. */
export function row_terms(params: SearchScanParams, block: RowBlock, from: u32, to: u32): void {
  const unit = error_unit(params.dim);
  const cosine = params.metric == SEARCH_SCAN_METRIC_COS;
  // Squares below 2^-126 are lost: |x|^2 is at most this much more than what was summed.
  const lost = f32x4.splat(<f32>params.dim * TINY);
  const growth = f32x4.splat(1 + 2 * unit);
  const product = params.metric == SEARCH_SCAN_METRIC_IP;
  const half = f32x4.splat(product ? 0 : -0.5);
  const error = f32x4.splat(product ? 0 : unit);
  for (let i: usize = from * 4, end: usize = to * 4; i < end; i += 16) {
    const at = block.factors() + i;
    let square = v128.load(block.squares() + i);
    let scale = f32x4.splat(1);
    if (params.row_scale != 0) scale = row_scales(params.row_scale, block.numbers() + i);
    if (cosine) {
      v128.store(at, cosine_factor(square, scale, params.row_scale != 0));
      v128.store(at, f32x4.splat(0), LINE);
      v128.store(at, f32x4.splat(0), 2 * LINE);
      v128.store(at, f32x4.splat(2 * unit), 3 * LINE);
      continue;
    }
    if (params.row_scale != 0) square = f32x4.mul(f32x4.mul(square, scale), scale);
    v128.store(at, scale);
    v128.store(at, f32x4.mul(square, half), LINE);
    v128.store(at, f32x4.sqrt(simd.madd(square, growth, lost)), 2 * LINE);
    v128.store(at, f32x4.mul(square, error), 3 * LINE);
  }
}

/** 1 / |row| with the sign of its scale. Outside a safe range an f32 norm says nothing: NaN means scoring exactly. */
function cosine_factor(square: v128, scale: v128, scaled: bool): v128 {
  const nan = f32x4.splat(NaN);
  const inverse = simd.select_inside(square, SMALLEST, LARGEST, f32x4.div(f32x4.splat(1), f32x4.sqrt(square)), nan);
  if (!scaled) return inverse;
  const positive = simd.select_inside(scale, 0, Infinity, f32x4.splat(1), nan);
  return f32x4.mul(inverse, simd.select_inside(scale, -Infinity, 0, f32x4.splat(-1), positive));
}
// 2^-100, 2^100, 2^-125
const SMALLEST: f32 = reinterpret<f32>(0x0d800000);
const LARGEST: f32 = reinterpret<f32>(0x71800000);
const TINY: f32 = reinterpret<f32>(0x01000000);

function row_scales(scales: usize, numbers: usize): v128 {
  const scale = v128.load32_zero(scales + load<u32>(numbers) * 4);
  const two = v128.load32_lane(scales + load<u32>(numbers, 4) * 4, scale, 1);
  const three = v128.load32_lane(scales + load<u32>(numbers, 8) * 4, two, 2);
  return v128.load32_lane(scales + load<u32>(numbers, 12) * 4, three, 3);
}

/** Turns the dot products of the rows from..to with one query into bounds, and keeps those that may be among its best. */
export function keep_rows(scan: Scan, block: RowBlock, from: u32, to: u32, dots: usize, query: u32, reservoir: Reservoir): void {
  const terms = scan.terms(query);
  if (terms.dead) return;
  const query_factor = f32x4.splat(terms.error_factor);
  const query_constant = f32x4.splat(terms.error_constant);
  const scale = f32x4.splat(terms.scale);
  for (let i = from; i < to; i += 4, dots += 16) {
    const at = block.factors() + i * 4;
    const score = simd.madd(f32x4.mul(v128.load(dots), scale), v128.load(at), v128.load(at, LINE));
    const error = f32x4.add(simd.madd(v128.load(at, 2 * LINE), query_factor, v128.load(at, 3 * LINE)), query_constant);
    // Not less, so that a NaN passes.
    const below = f32x4.lt(f32x4.add(score, error), f32x4.splat(reservoir.threshold));
    if (i32x4.all_true(below)) continue;
    const ends = scan.ends();
    v128.store(ends, score);
    v128.store(ends, error, 16);
    let passing: u32 = ~i32x4.bitmask(below) & 15;
    if (block.n - i < 4) passing &= (1 << (block.n - i)) - 1;
    for (; passing; passing &= passing - 1) {
      const lane: u32 = ctz(passing) * 4;
      push_row(scan, reservoir, load<u32>(block.numbers() + i * 4 + lane), load<f32>(ends + lane), load<f32>(ends + lane, 16), query, terms);
    }
  }
}
