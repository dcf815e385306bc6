// A query made ready for the rows: laid out as the kernel reads it, with its part of the error bound.
import { SEARCH_SCAN_METRIC_COS, SEARCH_SCAN_METRIC_L2 } from "../gen/params";
import { canonical_square } from "./scan-canonical";
import { QUERY_TILE } from "./scan-panel";
import { error_unit } from "./scan-rows";
import { QueryTerms, Scan } from "./scan-shape";

/** Query `i` of a block: its terms, and its values in the block's memory. */
export function prepare_query(scan: Scan, block: u32, i: u32): void {
  const params = scan.params;
  const dim = params.dim;
  const query = block * scan.block + i;
  const terms = scan.terms(query);
  const buffer = scan.buffer();
  let values = params.queries + query * dim * 4;
  terms.square = canonical_square(values, 1, dim);
  terms.dead = isNaN(terms.square) ? 1 : 0;
  terms.scale = 1;
  const length = Math.sqrt(terms.square);
  if (params.metric == SEARCH_SCAN_METRIC_COS) {
    for (let j: u32 = 0; j < dim * 4; j += 4) store<f32>(buffer + j, terms.square > 0 ? <f32>(<f64>load<f32>(values + j) / length) : 0);
    values = buffer;
  }
  let lost: f64 = 0;
  if (scan.integers) {
    const integers = buffer + dim * 4;
    lost = quantise(values, dim, integers, largest_value(scan), terms);
    if (scan.panel) lay_out_pairs(integers, scan, block, i);
    else lay_out_stream<i16>(integers, dim, scan.queries(block) + i * scan.query_length * 2);
  } else if (scan.panel) {
    lay_out_columns(values, scan, block, i);
  } else {
    lay_out_stream<f32>(values, dim, scan.queries(block) + i * scan.query_length * 4);
  }
  bound(terms, length, lost, params.metric, dim);
}

/** The query's part of the error bound (scan-rows.ts has the rows'). */
function bound(terms: QueryTerms, length: f64, rounding: f64, metric: u32, dim: u32): void {
  const unit: f64 = error_unit(dim);
  // Products below 2^-126 are lost, each by at most 2^-149.
  const lost = <f64>dim * LOST;
  if (metric == SEARCH_SCAN_METRIC_COS) {
    // A zero query scores 0 with every row; one whose norm overflowed says nothing.
    terms.error_factor = 0;
    terms.error_constant = <f32>((unit + rounding) * 1.01 + lost);
  } else {
    terms.error_factor = <f32>((length * unit + rounding) * 1.01);
    terms.error_constant = <f32>(lost + (metric == SEARCH_SCAN_METRIC_L2 ? terms.square * unit : 0));
  }
  if (!isFinite(terms.square)) terms.error_constant = Infinity;
  // The norm of an i8 row is at most 128 sqrt(dim) times its scale: loose by a factor of 2, enough beside 16-bit queries.
  terms.scaled_factor = <f32>(<f64>terms.error_factor * 128 * Math.sqrt(<f64>dim) * (1 + 2 * unit));
}
// 2^-140
const LOST: f64 = reinterpret<f64>(0x3730000000000000);

/**
 * The largest value for which no 32-bit sum can overflow: it adds 2 products of at most 128 a step. Sums of a panel
 * take a step for every 2 components, those of a stream for every 8.
 */
function largest_value(scan: Scan): f32 {
  const steps = scan.panel ? (scan.params.dim + 1) >> 1 : (scan.params.dim + 7) >> 3;
  return <f32>min<u32>(32767, <u32>i32.MAX_VALUE / (256 * steps));
}

/** The query as scale * 16-bit integers; returns the length of what is lost. */
function quantise(values: usize, dim: u32, integers: usize, limit: f32, terms: QueryTerms): f64 {
  let largest: f32 = 0;
  for (let j: u32 = 0; j < dim; j++) {
    const magnitude = abs(load<f32>(values + j * 4));
    if (magnitude > largest) largest = magnitude;
  }
  const scale = largest / limit;
  const usable = scale > 0 && isFinite(largest);
  terms.scale = scale;
  let lost: f64 = 0;
  for (let j: u32 = 0; j < dim; j++) {
    const component = load<f32>(values + j * 4);
    const whole: f32 = usable ? nearest(component / scale) : 0;
    // Never a NaN: that has no integer.
    const integer: f32 = whole > limit ? limit : whole >= -limit ? whole : -limit;
    store<i16>(integers + j * 2, <i16>(<i32>integer));
    const rest = <f64>component - <f64>scale * <f64>integer;
    lost += rest * rest;
  }
  return Math.sqrt(lost);
}

/** Whole vectors, then one that ends with the query's last components and is zero before them. */
function lay_out_stream<V>(values: usize, dim: u32, out: usize): void {
  const lanes = 16 / sizeof<V>();
  const rest = dim & (lanes - 1);
  const whole = dim - rest;
  for (let j: u32 = 0; j < whole; j++) store<V>(out + j * sizeof<V>(), load<V>(values + j * sizeof<V>()));
  const end = out + whole * sizeof<V>();
  v128.store(end, i64x2.splat(0));
  for (let j: u32 = 0; j < rest; j++) store<V>(end + (lanes - rest + j) * sizeof<V>(), load<V>(values + (whole + j) * sizeof<V>()));
}

/** Into a tile `[dim][4]`. */
function lay_out_columns(values: usize, scan: Scan, block: u32, i: u32): void {
  const dim = scan.params.dim;
  const out = scan.queries(block) + ((i / QUERY_TILE) * dim * QUERY_TILE + (i % QUERY_TILE)) * 4;
  for (let j: u32 = 0; j < dim; j++) store<f32>(out + j * QUERY_TILE * 4, load<f32>(values + j * 4));
}

/** Into a tile of pairs `[dim / 2][4][2]`; an odd end is paired with zero. */
function lay_out_pairs(integers: usize, scan: Scan, block: u32, i: u32): void {
  const dim = scan.params.dim;
  const pairs = scan.query_length >> 1;
  const out = scan.queries(block) + ((i / QUERY_TILE) * pairs * QUERY_TILE + (i % QUERY_TILE)) * 4;
  if (dim & 1) store<i16>(integers + dim * 2, 0);
  for (let j: u32 = 0; j < pairs; j++) store<u32>(out + j * QUERY_TILE * 4, load<u32>(integers + j * 4));
}

/** Sums with what lies beside the last of n queries are not used, but slow where they are subnormal. */
export function clear_last_tile(scan: Scan, block: u32, n: u32): void {
  if ((n & 3) == 0) return;
  const bytes = scan.query_length * (scan.integers ? 2 : 4);
  const tile = scan.queries(block) + (n & ~3) * bytes;
  for (let at: usize = 0; at < 4 * bytes; at += 4) store<u32>(tile + at, 0);
}
