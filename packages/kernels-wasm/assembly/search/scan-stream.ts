// Rows met where they lie, up to four queries at a time; sums run along the vector. Bound by memory for a few
// queries. i8 rows meet 16-bit queries: integer sums are exact, and the bound includes what quantising lost.
//
// Sums held in registers, of the 15 that V8 gives on x64: one query x 4 rows (4 sums, 4 squares), else 2 rows x up
// to 4 queries (8 sums, 2 squares, 2 rows, a query, a product: 14).
import { simd } from "../lib/simd";
import { BLOCK_ROWS, RowBlock } from "./scan-rows";
import { Scan } from "./scan-shape";

// Counts of queries and kinds of pass as types, so that each combination is compiled for its own.
type Two = i8;
type Three = i16;
type Four = i32;
/** Sums the rows' squares as well. */
type Squares = i8;
type Plain = i16;

/** Bytes between the dot products of one query and the next. */
export const DOTS_PITCH: usize = BLOCK_ROWS * 4;

/** dots [n][32] of a block of rows with up to four prepared queries, and their squares if wanted. */
export function stream<T>(scan: Scan, block: RowBlock, queries: usize, n: u32, squares: bool): void {
  if (squares) stream_some<T, Squares>(scan, block, queries, n);
  else stream_some<T, Plain>(scan, block, queries, n);
}

function stream_some<T, P>(scan: Scan, block: RowBlock, queries: usize, n: u32): void {
  if (n == 1) one_query<T, P>(scan, block, queries);
  else if (n == 2) some_queries<T, Two, P>(scan, block, queries);
  else if (n == 3) some_queries<T, Three, P>(scan, block, queries);
  else some_queries<T, Four, P>(scan, block, queries);
}

/** The components of a row that no whole vector covers, at the end of a vector of zeros. */
function row_end<T>(row: usize, dim: u32, to: usize): usize {
  const rest = dim & (simd.lanes<T>() - 1);
  v128.store(to, i64x2.splat(0));
  const first = to + (simd.lanes<T>() - rest) * sizeof<T>();
  row += (dim - rest) * sizeof<T>();
  for (let i: usize = 0; i < rest * sizeof<T>(); i += sizeof<T>()) store<T>(first + i, load<T>(row + i));
  return to;
}

function one_query<T, P>(scan: Scan, block: RowBlock, values: usize): void {
  const dim = scan.params.dim;
  const ends = scan.ends();
  const step: usize = simd.lanes<T>() * sizeof<T>();
  const whole = (dim & ~(simd.lanes<T>() - 1)) * simd.query_bytes<T>();
  let dots = scan.dots();
  let squares = block.squares();
  let addresses = block.addresses();
  for (const last = addresses + block.n * 4; addresses < last; addresses += 16, dots += 16, squares += 16) {
    let r0 = load<usize>(addresses);
    let r1 = load<usize>(addresses, 4);
    let r2 = load<usize>(addresses, 8);
    let r3 = load<usize>(addresses, 12);
    let s0 = i64x2.splat(0);
    let s1 = s0;
    let s2 = s0;
    let s3 = s0;
    let t0 = s0;
    let t1 = s0;
    let t2 = s0;
    let t3 = s0;
    let query = values;
    let end = values + whole;
    for (let left = dim & (simd.lanes<T>() - 1); ; left = 0) {
      while (query < end) {
        const y = v128.load(query);
        let x = simd.terms<T>(r0);
        s0 = simd.madd_terms<T>(x, y, s0);
        if (sizeof<P>() == sizeof<Squares>()) t0 = simd.madd_terms<T>(x, x, t0);
        x = simd.terms<T>(r1);
        s1 = simd.madd_terms<T>(x, y, s1);
        if (sizeof<P>() == sizeof<Squares>()) t1 = simd.madd_terms<T>(x, x, t1);
        x = simd.terms<T>(r2);
        s2 = simd.madd_terms<T>(x, y, s2);
        if (sizeof<P>() == sizeof<Squares>()) t2 = simd.madd_terms<T>(x, x, t2);
        x = simd.terms<T>(r3);
        s3 = simd.madd_terms<T>(x, y, s3);
        if (sizeof<P>() == sizeof<Squares>()) t3 = simd.madd_terms<T>(x, x, t3);
        query += 16;
        r0 += step;
        r1 += step;
        r2 += step;
        r3 += step;
      }
      if (left == 0) break;
      end += 16;
      r0 = row_end<T>(load<usize>(addresses), dim, ends);
      r1 = row_end<T>(load<usize>(addresses, 4), dim, ends + 16);
      r2 = row_end<T>(load<usize>(addresses, 8), dim, ends + 32);
      r3 = row_end<T>(load<usize>(addresses, 12), dim, ends + 48);
    }
    v128.store(dots, simd.sum4_terms<T>(s0, s1, s2, s3));
    if (sizeof<P>() == sizeof<Squares>()) v128.store(squares, simd.sum4_terms<T>(t0, t1, t2, t3));
  }
}

function some_queries<T, Q, P>(scan: Scan, block: RowBlock, values: usize): void {
  const dim = scan.params.dim;
  const ends = scan.ends();
  const step: usize = simd.lanes<T>() * sizeof<T>();
  const whole = (dim & ~(simd.lanes<T>() - 1)) * simd.query_bytes<T>();
  const pitch = scan.query_length * simd.query_bytes<T>();
  let dots = scan.dots();
  let squares = block.squares();
  let addresses = block.addresses();
  for (const last = addresses + block.n * 4; addresses < last; addresses += 8, dots += 8, squares += 8) {
    let r0 = load<usize>(addresses);
    let r1 = load<usize>(addresses, 4);
    let a0 = i64x2.splat(0);
    let a1 = a0;
    let b0 = a0;
    let b1 = a0;
    let c0 = a0;
    let c1 = a0;
    let d0 = a0;
    let d1 = a0;
    let t0 = a0;
    let t1 = a0;
    let query = values;
    let end = values + whole;
    for (let left = dim & (simd.lanes<T>() - 1); ; left = 0) {
      while (query < end) {
        const x0 = simd.terms<T>(r0);
        const x1 = simd.terms<T>(r1);
        let y = v128.load(query);
        a0 = simd.madd_terms<T>(x0, y, a0);
        a1 = simd.madd_terms<T>(x1, y, a1);
        y = v128.load(query + pitch);
        b0 = simd.madd_terms<T>(x0, y, b0);
        b1 = simd.madd_terms<T>(x1, y, b1);
        if (sizeof<Q>() >= sizeof<Three>()) {
          y = v128.load(query + 2 * pitch);
          c0 = simd.madd_terms<T>(x0, y, c0);
          c1 = simd.madd_terms<T>(x1, y, c1);
        }
        if (sizeof<Q>() >= sizeof<Four>()) {
          y = v128.load(query + 3 * pitch);
          d0 = simd.madd_terms<T>(x0, y, d0);
          d1 = simd.madd_terms<T>(x1, y, d1);
        }
        if (sizeof<P>() == sizeof<Squares>()) {
          t0 = simd.madd_terms<T>(x0, x0, t0);
          t1 = simd.madd_terms<T>(x1, x1, t1);
        }
        query += 16;
        r0 += step;
        r1 += step;
      }
      if (left == 0) break;
      end += 16;
      r0 = row_end<T>(load<usize>(addresses), dim, ends);
      r1 = row_end<T>(load<usize>(addresses, 4), dim, ends + 16);
    }
    const ab = simd.sum4_terms<T>(a0, a1, b0, b1);
    v128.store64_lane(dots, ab, 0);
    v128.store64_lane(dots, ab, 1, DOTS_PITCH);
    if (sizeof<Q>() >= sizeof<Three>()) {
      const cd = simd.sum4_terms<T>(c0, c1, d0, d1);
      v128.store64_lane(dots, cd, 0, 2 * DOTS_PITCH);
      if (sizeof<Q>() >= sizeof<Four>()) v128.store64_lane(dots, cd, 1, 3 * DOTS_PITCH);
    }
    if (sizeof<P>() == sizeof<Squares>()) v128.store64_lane(squares, simd.sum4_terms<T>(t0, t1, t0, t1), 0);
  }
}
