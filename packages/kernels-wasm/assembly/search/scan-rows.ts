// A block of rows on its way through the kernel: which rows, where they lie, and what turns their raw dot products
// into approximate scores with bounds.
import { SEARCH_SCAN_METRIC_COS, SEARCH_SCAN_METRIC_IP, SearchScanParams } from "../gen/params";
import { simd } from "../lib/simd";
import { push_row } from "./scan-reservoir";
import { Scan } from "./scan-shape";

/** Rows of a block: two vectors. */
export const BLOCK_ROWS: u32 = 8;
export const ROW_BLOCK_BYTES: u64 = 256;

/**
 * Of 8 rows each: numbers u32, addresses, squares |row|^2 f32 (of i8 rows before scaling); then f32 terms:
 * score = dot * factor + term;  error = norm * query factor + error + query constant
 */
@unmanaged
export class RowBlock {
  /** Rows in use; the rest repeat the last one. */
  n: u32;

  numbers(): usize {
    return changetype<usize>(this) + 32;
  }
  addresses(): usize {
    return changetype<usize>(this) + 64;
  }
  squares(): usize {
    return changetype<usize>(this) + 96;
  }
  factors(): usize {
    return changetype<usize>(this) + 128;
  }
  terms(): usize {
    return changetype<usize>(this) + 160;
  }
  norms(): usize {
    return changetype<usize>(this) + 192;
  }
  errors(): usize {
    return changetype<usize>(this) + 224;
  }
  number(i: u32): u32 {
    return load<u32>(this.numbers() + i * 4);
  }
  address(i: u32): usize {
    return load<usize>(this.addresses() + i * 4);
  }
}

/** Roundings of a sum of dim products in any order, of the norm, and of what follows, with room to spare. */
export function error_unit(dim: u32): f32 {
  return <f32>(dim + 16) * ROUNDING;
}
// 1.02 * 2^-24, and the least f32 that keeps all bits of a square.
const ROUNDING: f32 = reinterpret<f32>(0x33828000);

/** Collects up to 8 rows from `next` on that pass the filter; returns where to go on, or `end`. */
export function next_rows(params: SearchScanParams, next: u32, end: u32, block: RowBlock, element: u32): u32 {
  const numbers = block.numbers();
  const filter = params.filter;
  let n: u32 = 0;
  if (filter == 0) {
    n = min(BLOCK_ROWS, end - next);
    for (let i: u32 = 0; i < n; i++) store<u32>(numbers + i * 4, next + i);
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
  for (let i = n; i < BLOCK_ROWS; i++) store<u32>(numbers + i * 4, last);
  const pitch = params.rows_pitch * element;
  for (let i: u32 = 0; i < BLOCK_ROWS; i++) store<usize>(block.addresses() + i * 4, params.rows + block.number(i) * pitch);
  return next;
}

/** Fills factors, terms, norms and errors from squares. */
export function row_terms(params: SearchScanParams, block: RowBlock): void {
  for (let half: usize = 0; half < 32; half += 16) half_terms(params, changetype<usize>(block) + half);
}

/** Of four rows. `at` is the block's address, or 16 more: offsets as in RowBlock. */
function half_terms(params: SearchScanParams, at: usize): void {
  const unit = error_unit(params.dim);
  const scaled = params.row_scale != 0;
  let square = v128.load(at, 96);
  let scale = f32x4.splat(1);
  if (scaled) scale = row_scales(params, at);
  if (params.metric == SEARCH_SCAN_METRIC_COS) {
    // Outside this range a norm in f32 says nothing: NaN sends the row to the canonical score.
    const nan = f32x4.splat(NaN);
    let inverse = simd.select_inside(square, SMALLEST, LARGEST, f32x4.div(f32x4.splat(1), f32x4.sqrt(square)), nan);
    if (scaled) {
      const positive = simd.select_inside(scale, 0, Infinity, f32x4.splat(1), nan);
      inverse = f32x4.mul(inverse, simd.select_inside(scale, -Infinity, 0, f32x4.splat(-1), positive));
    }
    v128.store(at, inverse, 128);
    v128.store(at, f32x4.splat(0), 160);
    v128.store(at, f32x4.splat(0), 192);
    v128.store(at, f32x4.splat(2 * unit), 224);
    return;
  }
  if (scaled) square = f32x4.mul(f32x4.mul(square, scale), scale);
  // Squares below 2^-126 are lost: |x|^2 is at most this much more than what was summed.
  const lost = f32x4.splat(<f32>params.dim * TINY);
  v128.store(at, scale, 128);
  v128.store(at, f32x4.sqrt(simd.madd(square, f32x4.splat(1 + 2 * unit), lost)), 192);
  if (params.metric == SEARCH_SCAN_METRIC_IP) {
    v128.store(at, f32x4.splat(0), 160);
    v128.store(at, f32x4.splat(0), 224);
  } else {
    v128.store(at, f32x4.mul(square, f32x4.splat(-0.5)), 160);
    v128.store(at, f32x4.mul(square, f32x4.splat(unit)), 224);
  }
}
// 2^-100, 2^100, 2^-125
const SMALLEST: f32 = reinterpret<f32>(0x0d800000);
const LARGEST: f32 = reinterpret<f32>(0x71800000);
const TINY: f32 = reinterpret<f32>(0x01000000);

function row_scales(params: SearchScanParams, at: usize): v128 {
  const scales = params.row_scale;
  let scale = v128.load32_zero(scales + load<u32>(at, 32) * 4);
  scale = f32x4.replace_lane(scale, 1, load<f32>(scales + load<u32>(at, 36) * 4));
  scale = f32x4.replace_lane(scale, 2, load<f32>(scales + load<u32>(at, 40) * 4));
  return f32x4.replace_lane(scale, 3, load<f32>(scales + load<u32>(at, 44) * 4));
}

/** Turns `dots [8]` of one query into bounds, and keeps the rows that may be among its best. */
export function keep_rows(scan: Scan, block: RowBlock, dots: usize, query: u32): void {
  const terms = scan.terms(query);
  if (terms.dead) return;
  const reservoir = scan.reservoir(scan.slot, query);
  const threshold = f32x4.splat(reservoir.threshold);
  const query_factor = f32x4.splat(terms.error_factor);
  const query_constant = f32x4.splat(terms.error_constant);
  const at = changetype<usize>(block);
  const scale = f32x4.splat(terms.scale);
  const score0 = simd.madd(f32x4.mul(v128.load(dots), scale), v128.load(at, 128), v128.load(at, 160));
  const score1 = simd.madd(f32x4.mul(v128.load(dots, 16), scale), v128.load(at, 144), v128.load(at, 176));
  const error0 = f32x4.add(simd.madd(v128.load(at, 192), query_factor, v128.load(at, 224)), query_constant);
  const error1 = f32x4.add(simd.madd(v128.load(at, 208), query_factor, v128.load(at, 240)), query_constant);
  // Not less, so that a NaN passes.
  const below0 = f32x4.lt(f32x4.add(score0, error0), threshold);
  const below1 = f32x4.lt(f32x4.add(score1, error1), threshold);
  let passing: u32 = ~(i32x4.bitmask(below0) | (i32x4.bitmask(below1) << 4)) & ((1 << block.n) - 1);
  if (passing == 0) return;
  // The dot products are not needed any more; their place takes the scores, the end buffer the errors.
  const ends = scan.ends();
  v128.store(dots, score0);
  v128.store(dots, score1, 16);
  v128.store(ends, error0);
  v128.store(ends, error1, 16);
  for (; passing; passing &= passing - 1) {
    const i: u32 = ctz(passing);
    push_row(scan, reservoir, block.number(i), load<f32>(dots + i * 4), load<f32>(ends + i * 4), query, terms);
  }
}
