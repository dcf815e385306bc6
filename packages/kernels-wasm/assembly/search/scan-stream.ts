// Rows met where they lie, up to four queries at a time; sums run along the vector. Bound by memory for a few
// queries. i8 rows meet 16-bit queries: integer sums are exact, and the bound includes what quantising lost.
//
// Sums held in registers, of the 15 that V8 gives on x64: one query x 4 rows (4 sums, 4 squares), else 2 rows x up
// to 4 queries (8 sums, 2 squares, 2 rows, a query, a product: 14).
import { simd } from "../lib/simd";
import { RowBlock } from "./scan-rows";
import { Scan } from "./scan-shape";

// Counts of queries and kinds of pass as types, so that each combination is compiled for its own.
type Two = i8;
type Three = i16;
type Four = i32;
/** The first pass over a block of rows sums their squares as well. */
type First = i8;
type Again = i16;

/** dots [n][8] of a block of rows with n prepared queries, and its squares. T is i8 for 16-bit queries. */
export function stream<T>(scan: Scan, block: RowBlock, queries: usize, n: u32): void {
  const pitch = scan.query_length * simd.query_bytes<T>();
  const dots = scan.dots();
  stream_group<T, First>(scan, block, queries, pitch, min(n, 4), dots);
  for (let at: u32 = 4; at < n; at += 4) stream_group<T, Again>(scan, block, queries + at * pitch, pitch, min(n - at, 4), dots + at * 32);
}

function stream_group<T, P>(scan: Scan, block: RowBlock, queries: usize, pitch: usize, n: u32, dots: usize): void {
  const dim = scan.params.dim;
  const ends = scan.ends();
  if (n == 1) {
    for (let r: usize = 0; r < 32; r += 16) four_rows<T, P>(block, r, dim, queries, dots + r, ends);
    return;
  }
  for (let r: usize = 0; r < 32; r += 8) {
    if (n == 2) two_rows<T, Two, P>(block, r, dim, queries, pitch, dots + r, ends);
    else if (n == 3) two_rows<T, Three, P>(block, r, dim, queries, pitch, dots + r, ends);
    else two_rows<T, Four, P>(block, r, dim, queries, pitch, dots + r, ends);
  }
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

function four_rows<T, P>(block: RowBlock, r: usize, dim: u32, query: usize, dots: usize, ends: usize): void {
  const addresses = block.addresses() + r;
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
  let end = query + (dim & ~(simd.lanes<T>() - 1)) * simd.query_bytes<T>();
  for (let left = dim & (simd.lanes<T>() - 1); ; left = 0) {
    while (query < end) {
      const y = v128.load(query);
      let x = simd.terms<T>(r0);
      s0 = simd.madd_terms<T>(x, y, s0);
      if (sizeof<P>() == sizeof<First>()) t0 = simd.madd_terms<T>(x, x, t0);
      x = simd.terms<T>(r1);
      s1 = simd.madd_terms<T>(x, y, s1);
      if (sizeof<P>() == sizeof<First>()) t1 = simd.madd_terms<T>(x, x, t1);
      x = simd.terms<T>(r2);
      s2 = simd.madd_terms<T>(x, y, s2);
      if (sizeof<P>() == sizeof<First>()) t2 = simd.madd_terms<T>(x, x, t2);
      x = simd.terms<T>(r3);
      s3 = simd.madd_terms<T>(x, y, s3);
      if (sizeof<P>() == sizeof<First>()) t3 = simd.madd_terms<T>(x, x, t3);
      query += 16;
      r0 += simd.lanes<T>() * sizeof<T>();
      r1 += simd.lanes<T>() * sizeof<T>();
      r2 += simd.lanes<T>() * sizeof<T>();
      r3 += simd.lanes<T>() * sizeof<T>();
    }
    if (left == 0) break;
    end += 16;
    r0 = row_end<T>(load<usize>(addresses), dim, ends);
    r1 = row_end<T>(load<usize>(addresses, 4), dim, ends + 16);
    r2 = row_end<T>(load<usize>(addresses, 8), dim, ends + 32);
    r3 = row_end<T>(load<usize>(addresses, 12), dim, ends + 48);
  }
  v128.store(dots, simd.sum4_terms<T>(s0, s1, s2, s3));
  if (sizeof<P>() == sizeof<First>()) v128.store(block.squares() + r, simd.sum4_terms<T>(t0, t1, t2, t3));
}

function two_rows<T, Q, P>(block: RowBlock, r: usize, dim: u32, query: usize, pitch: usize, dots: usize, ends: usize): void {
  const addresses = block.addresses() + r;
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
  let end = query + (dim & ~(simd.lanes<T>() - 1)) * simd.query_bytes<T>();
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
      if (sizeof<P>() == sizeof<First>()) {
        t0 = simd.madd_terms<T>(x0, x0, t0);
        t1 = simd.madd_terms<T>(x1, x1, t1);
      }
      query += 16;
      r0 += simd.lanes<T>() * sizeof<T>();
      r1 += simd.lanes<T>() * sizeof<T>();
    }
    if (left == 0) break;
    end += 16;
    r0 = row_end<T>(load<usize>(addresses), dim, ends);
    r1 = row_end<T>(load<usize>(addresses, 4), dim, ends + 16);
  }
  const ab = simd.sum4_terms<T>(a0, a1, b0, b1);
  v128.store64_lane(dots, ab, 0);
  v128.store64_lane(dots, ab, 1, 32);
  if (sizeof<Q>() >= sizeof<Three>()) {
    const cd = simd.sum4_terms<T>(c0, c1, d0, d1);
    v128.store64_lane(dots, cd, 0, 64);
    if (sizeof<Q>() >= sizeof<Four>()) v128.store64_lane(dots, cd, 1, 96);
  }
  if (sizeof<P>() == sizeof<First>()) v128.store64_lane(block.squares() + r, simd.sum4_terms<T>(t0, t1, t0, t1), 0);
}
