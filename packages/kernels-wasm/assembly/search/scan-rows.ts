// A block of rows on its way through the kernel: which rows, where they lie, and what turns their raw dot products
// into approximate scores with bounds.
import { SEARCH_SCAN_METRIC_COS, SEARCH_SCAN_METRIC_IP, SearchScanParams } from "../gen/params";
import { simd } from "../lib/simd";
import { push_row, Reservoir } from "./scan-reservoir";
import { QueryTerms, Scan } from "./scan-shape";

/** Rows of a block: enough that what is done once a block costs little, and 16 KiB of 128 floats stay in the L1. */
export const BLOCK_ROWS: u32 = 32;
/**
 * A range of rows is read at so many places side by side. Processors fetch ahead along each, and too few lines along
 * one: on rows of 128 components 14.5 against 10 GB/s (f32) and 13 against 8 (i8), where a plain read reaches 14.
 */
const PLACES: u32 = 8;
/** Bytes of one array of a block, and of a block. */
const LINE: usize = BLOCK_ROWS * 4;
export const ROW_BLOCK_BYTES: u64 = 64 + 7 * LINE;

/**
 * A header, then arrays [32]: row numbers u32, addresses, squares |row|^2 f32 (of i8 rows before scaling); and f32
 * terms: score = dot * factor + term;  error = norm * query factor + error + query constant
 */
@unmanaged
export class RowBlock {
  /** Rows in use; up to the next multiple of 8 they repeat the last one. */
  n: u32;
  /** The range: its first row, rows, and how many have been taken. */
  private first: u32;
  private rows: u32;
  private taken: u32;
  /** Rows of each place; what is left over comes last. */
  private run: u32;
  private place: u32;
  /** The largest magnitude of the range's scales, where only scales tell i8 rows apart. */
  largest_scale: f32;

  /** Begins at a range of rows. */
  open(first: u32, end: u32): void {
    this.first = first;
    this.rows = end - first;
    this.taken = 0;
    this.run = (end - first) / PLACES;
    this.place = 0;
    for (let place: u32 = 0; place < PLACES; place++) store<u32>(this.cursors() + place * 4, first + place * this.run);
  }

  /** Collects up to 32 rows that pass the filter; false when there are no more. */
  next(params: SearchScanParams, element: u32): bool {
    const numbers = this.numbers();
    const n = params.filter == 0 ? this.take_all(numbers) : this.take_filtered(params.filter, numbers);
    this.n = n;
    if (n == 0) return false;
    const last = load<u32>(numbers + (n - 1) * 4);
    let padded = n;
    for (; (padded & 7) != 0; padded++) store<u32>(numbers + padded * 4, last);
    const pitch = i32x4.splat(params.rows_pitch * element);
    const rows = i32x4.splat(params.rows);
    for (let i: usize = 0; i < padded * 4; i += 16)
      v128.store(this.addresses() + i, i32x4.add(rows, i32x4.mul(v128.load(numbers + i), pitch)));
    return true;
  }

  private take_all(numbers: usize): u32 {
    const n = min(BLOCK_ROWS, this.rows - this.taken);
    const run = this.run;
    const places = i32x4.mul(i32x4(0, 1, 2, 3), i32x4.splat(run));
    for (let i: u32 = 0; i < n; i += 4) {
      const at = this.taken + i;
      // Four places, the other four, then the same a row on; at the end what is left over.
      const four =
        at < run * PLACES
          ? i32x4.add(places, i32x4.splat(this.first + at / PLACES + (at & 4) * run))
          : i32x4.add(i32x4(0, 1, 2, 3), i32x4.splat(this.first + at));
      v128.store(numbers + i * 4, four);
    }
    this.taken += n;
    return n;
  }

  private take_filtered(filter: usize, numbers: usize): u32 {
    let n: u32 = 0;
    let place = this.place;
    for (let idle: u32 = 0; n < BLOCK_ROWS && idle < PLACES; place = (place + 1) & (PLACES - 1)) {
      const cursor = this.cursors() + place * 4;
      const end = place == PLACES - 1 ? this.first + this.rows : this.first + (place + 1) * this.run;
      let row = load<u32>(cursor);
      while (row < end) {
        const word = load<u32>(filter + ((row >> 5) << 2)) >> (row & 31);
        // To the next bit that is set, or the next word.
        row = word == 0 ? (row | 31) + 1 : row + ctz(word);
        if (word != 0) break;
      }
      store<u32>(cursor, row + 1);
      idle = row < end ? 0 : idle + 1;
      if (row < end) store<u32>(numbers + n++ * 4, row);
    }
    this.place = place;
    return n;
  }

  private cursors(): usize {
    return changetype<usize>(this) + 32;
  }
  numbers(): usize {
    return changetype<usize>(this) + 64;
  }
  addresses(): usize {
    return changetype<usize>(this) + 64 + LINE;
  }
  squares(): usize {
    return changetype<usize>(this) + 64 + 2 * LINE;
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
export function keep_rows(
  scan: Scan,
  block: RowBlock,
  from: u32,
  to: u32,
  dots: usize,
  query: u32,
  terms: QueryTerms,
  reservoir: Reservoir,
): void {
  if (terms.dead) return;
  const query_factor = v128.load32_splat(changetype<usize>(terms), offsetof<QueryTerms>("error_factor"));
  const query_constant = v128.load32_splat(changetype<usize>(terms), offsetof<QueryTerms>("error_constant"));
  const scale = v128.load32_splat(changetype<usize>(terms), offsetof<QueryTerms>("scale"));
  let threshold = f32x4.splat(reservoir.threshold);
  let at = block.factors() + from * 4;
  for (let i = from; i < to; i += 4, dots += 16, at += 16) {
    const score = simd.madd(f32x4.mul(v128.load(dots), scale), v128.load(at), v128.load(at, LINE));
    const error = f32x4.add(simd.madd(v128.load(at, 2 * LINE), query_factor, v128.load(at, 3 * LINE)), query_constant);
    const below = bounds.below(score, error, threshold);
    if (i32x4.all_true(below)) continue;
    push_lanes(scan, block, i, score, error, below, query, terms, reservoir);
    threshold = f32x4.splat(reservoir.threshold);
  }
}

/** The largest magnitude of the scales of a range of rows; NaN where there is one. */
export function largest_scale(scales: usize, first: u32, end: u32): f32 {
  let largest = i32x4.splat(0);
  let row = first;
  for (; row + 4 <= end; row += 4) largest = magnitudes.larger(largest, v128.load(scales + row * 4));
  for (; row < end; row++) largest = magnitudes.larger(largest, v128.load32_splat(scales + row * 4));
  return magnitudes.largest(largest);
}

/**
 * The same for all i8 rows of a block by inner product: the scale of a row is all there is to know of it, and most
 * blocks are passed over for the largest scale of their range. Scales met row by row cost a third of the time of a scan.
 */
export function keep_scaled(scan: Scan, block: RowBlock, dots: usize, query: u32, terms: QueryTerms, reservoir: Reservoir): void {
  if (terms.dead || none_passes(block, dots, terms, reservoir.threshold)) return;
  const scales = scan.params.row_scale;
  const query_factor = v128.load32_splat(changetype<usize>(terms), offsetof<QueryTerms>("scaled_factor"));
  const query_constant = v128.load32_splat(changetype<usize>(terms), offsetof<QueryTerms>("error_constant"));
  const query_scale = v128.load32_splat(changetype<usize>(terms), offsetof<QueryTerms>("scale"));
  let threshold = f32x4.splat(reservoir.threshold);
  let numbers = block.numbers();
  for (let i: u32 = 0, n = block.n; i < n; i += 4, dots += 16, numbers += 16) {
    const scale = row_scales(scales, numbers);
    const score = f32x4.mul(f32x4.mul(v128.load(dots), query_scale), scale);
    const error = simd.madd(f32x4.abs(scale), query_factor, query_constant);
    const below = bounds.below(score, error, threshold);
    if (i32x4.all_true(below)) continue;
    push_lanes(scan, block, i, score, error, below, query, terms, reservoir);
    threshold = f32x4.splat(reservoir.threshold);
  }
}

/** Whether no row can, were every scale the largest. Dot products are numbers; a scale that is not lets all pass. */
function none_passes(block: RowBlock, dots: usize, terms: QueryTerms, threshold: f32): bool {
  let largest = i32x4.splat(0);
  for (const end = dots + block.n * 4; dots < end; dots += 16) largest = magnitudes.larger(largest, v128.load(dots));
  const bound = (magnitudes.largest(largest) * terms.scale + terms.scaled_factor) * block.largest_scale + terms.error_constant;
  return bound * ROUNDED < threshold;
}
// 1 + 2^-20: the roundings of the bound.
const ROUNDED: f32 = reinterpret<f32>(0x3f800008);

/** Magnitudes in the order of their bits, where a NaN is the largest; a maximum of floats takes wasm seven instructions. */
class magnitudes {
  @inline static larger(largest: v128, x: v128): v128 {
    return i32x4.max_s(largest, f32x4.abs(x));
  }
  @inline static largest(lanes: v128): f32 {
    const two = i32x4.max_s(lanes, v128.shuffle<i64>(lanes, lanes, 1, 0));
    return reinterpret<f32>(max(i32x4.extract_lane(two, 0), i32x4.extract_lane(two, 1)));
  }
}

class bounds {
  /** Lanes that cannot pass. A NaN passes, and so does -Inf: a sum may have overflowed on the way to a finite score. */
  @inline static below(score: v128, error: v128, threshold: v128): v128 {
    return v128.and(f32x4.lt(f32x4.add(score, error), threshold), f32x4.gt(score, f32x4.splat(-Infinity)));
  }
}

function push_lanes(
  scan: Scan,
  block: RowBlock,
  first: u32,
  score: v128,
  error: v128,
  below: v128,
  query: u32,
  terms: QueryTerms,
  reservoir: Reservoir,
): void {
  const ends = scan.ends();
  v128.store(ends, score);
  v128.store(ends, error, 16);
  let passing: u32 = ~i32x4.bitmask(below) & 15;
  if (block.n - first < 4) passing &= (1 << (block.n - first)) - 1;
  for (; passing; passing &= passing - 1) {
    const lane: u32 = ctz(passing) * 4;
    push_row(
      scan,
      reservoir,
      load<u32>(block.numbers() + first * 4 + lane),
      load<f32>(ends + lane),
      load<f32>(ends + lane, 16),
      query,
      terms,
    );
  }
}
