// Many queries: 8 rows are packed as a panel `[columns][8]` of 32-bit lanes, and each tile of 4 queries runs over
// it with all its sums in registers: 2 vectors x 4 queries, 8 sums of the 15 registers that V8 gives on x64, with
// 2 panel vectors, a query and a product. Bound by multiply-add.
// A lane is a float, or of i8 rows a pair of 16-bit integers: two components a step.
import { simd } from "../lib/simd";
import { RowBlock } from "./scan-rows";
import { Scan } from "./scan-shape";

export const QUERY_TILE: u32 = 4;
export const PANEL_ROWS: u32 = 8;

/** Columns of a panel. */
function columns<T>(dim: u32): u32 {
  return sizeof<T>() == 1 ? (dim + 1) >> 1 : dim;
}

/** Packs and widens the 8 rows from `row` on; also sums their squares. */
export function pack_panel<T>(scan: Scan, block: RowBlock, row: u32): void {
  pack_four<T>(scan, block, row, 0);
  pack_four<T>(scan, block, row + 4, 16);
}

/** Four of the rows, `half` bytes from the start of a panel's columns. */
function pack_four<T>(scan: Scan, block: RowBlock, row: u32, half: usize): void {
  const dim = scan.params.dim;
  const addresses = block.addresses() + row * 4;
  const step: usize = simd.lanes<T>() * sizeof<T>();
  let r0 = load<usize>(addresses);
  let r1 = load<usize>(addresses, 4);
  let r2 = load<usize>(addresses, 8);
  let r3 = load<usize>(addresses, 12);
  let square = i64x2.splat(0);
  let out = scan.panel_memory() + half;
  let end = out + (dim / simd.lanes<T>()) * 128;
  for (let rest = dim % simd.lanes<T>(); ; rest = 0) {
    while (out < end) {
      const a = simd.terms<T>(r0);
      const b = simd.terms<T>(r1);
      const c = simd.terms<T>(r2);
      const d = simd.terms<T>(r3);
      const ab = simd.low(a, b);
      const cd = simd.low(c, d);
      const ef = simd.high(a, b);
      const gh = simd.high(c, d);
      const column0 = simd.low_pairs(ab, cd);
      const column1 = simd.high_pairs(ab, cd);
      const column2 = simd.low_pairs(ef, gh);
      const column3 = simd.high_pairs(ef, gh);
      v128.store(out, column0);
      v128.store(out, column1, 32);
      v128.store(out, column2, 64);
      v128.store(out, column3, 96);
      square = simd.madd_terms<T>(column0, column0, square);
      square = simd.madd_terms<T>(column1, column1, square);
      square = simd.madd_terms<T>(column2, column2, square);
      square = simd.madd_terms<T>(column3, column3, square);
      out += 128;
      r0 += step;
      r1 += step;
      r2 += step;
      r3 += step;
    }
    // The rest of each row, with zeros behind it: the panel has room for a whole vector.
    if (rest == 0) break;
    const ends = scan.ends();
    r0 = row_rest<T>(r0, rest, ends);
    r1 = row_rest<T>(r1, rest, ends + 16);
    r2 = row_rest<T>(r2, rest, ends + 32);
    r3 = row_rest<T>(r3, rest, ends + 48);
    end += 128;
  }
  v128.store(block.squares() + row * 4, simd.sums<T>(square));
}

function row_rest<T>(row: usize, rest: u32, to: usize): usize {
  v128.store(to, i64x2.splat(0));
  for (let i: usize = 0; i < rest * sizeof<T>(); i += sizeof<T>()) store<T>(to + i, load<T>(row + i));
  return to;
}

/** dots [4][8] of four queries, packed `[columns][4]`. T is i8 for pairs of integers. */
export function panel_tile<T>(panel: usize, queries: usize, dim: u32, dots: usize): void {
  let a0 = i64x2.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (const end = queries + columns<T>(dim) * 16; queries < end; queries += 16, panel += 32) {
    const x0 = v128.load(panel);
    const x1 = v128.load(panel, 16);
    let y = v128.load32_splat(queries);
    a0 = simd.madd_terms<T>(x0, y, a0);
    a1 = simd.madd_terms<T>(x1, y, a1);
    y = v128.load32_splat(queries, 4);
    b0 = simd.madd_terms<T>(x0, y, b0);
    b1 = simd.madd_terms<T>(x1, y, b1);
    y = v128.load32_splat(queries, 8);
    c0 = simd.madd_terms<T>(x0, y, c0);
    c1 = simd.madd_terms<T>(x1, y, c1);
    y = v128.load32_splat(queries, 12);
    d0 = simd.madd_terms<T>(x0, y, d0);
    d1 = simd.madd_terms<T>(x1, y, d1);
  }
  v128.store(dots, simd.sums<T>(a0));
  v128.store(dots, simd.sums<T>(a1), 16);
  v128.store(dots + 32, simd.sums<T>(b0));
  v128.store(dots + 32, simd.sums<T>(b1), 16);
  v128.store(dots + 64, simd.sums<T>(c0));
  v128.store(dots + 64, simd.sums<T>(c1), 16);
  v128.store(dots + 96, simd.sums<T>(d0));
  v128.store(dots + 96, simd.sums<T>(d1), 16);
}
