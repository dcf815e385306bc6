// Weights as panels: 8 rows, widened and transposed to [columns][8], meet 4 vectors packed as [columns][4]: 8 sums, 2 row
// vectors and a splat are 11 of the 15 registers that V8 gives on x64.
import { ModelLinearParams } from "../gen/params";
import { Q8, Q8_BYTES, q8 } from "../lib/q8";
import { simd } from "../lib/simd";

export const PANEL_ROWS: u32 = 8;
export const TOKEN_TILE: u32 = 4;
/** 256 columns of a panel are 8 KiB, beside 4 KiB of vectors: they stay in the first-level cache. */
export const PANEL_COLUMNS: u32 = 256;

/** Marks q8_0 where an element type is asked for. */
export type Blocks = u64;

/** Bytes of a row of weights. */
export function row_bytes<T>(params: ModelLinearParams): usize {
  return sizeof<T>() == 8 ? (params.in_dim / Q8) * Q8_BYTES : params.in_dim * sizeof<T>();
}

/** Four columns of a row from column `at` on; fewer where the row ends, in memory at `rest` [16 bytes]. */
class weights_row {
  @inline static columns_of<T>(row: usize, at: u32, end: u32, rest: usize): v128 {
    if (sizeof<T>() == 8) return q8.load(row + (at / Q8) * Q8_BYTES, at % Q8);
    if (at + 4 <= end) return simd.load<T>(row + at * sizeof<T>());
    v128.store(rest, f32x4.splat(0));
    memory.copy(rest, row + at * sizeof<T>(), (end - at) * sizeof<T>());
    return simd.load<T>(rest);
  }
}

/** Columns first to end of `rows` rows as [columns][PANEL_ROWS]; rows that are not there are 0. */
export function pack_weights<T>(params: ModelLinearParams, row: u32, rows: u32, first: u32, end: u32, panel: usize, rest: usize): void {
  const bytes = row_bytes<T>(params);
  const weights = params.weight + row * bytes;
  const none = f32x4.splat(0);
  for (let g: u32 = 0; g < PANEL_ROWS; g += 4) {
    const at = weights + g * bytes;
    for (let i = first; i < end; i += 4) {
      const a = g < rows ? weights_row.columns_of<T>(at, i, end, rest) : none;
      const b = g + 1 < rows ? weights_row.columns_of<T>(at + bytes, i, end, rest) : none;
      const c = g + 2 < rows ? weights_row.columns_of<T>(at + 2 * bytes, i, end, rest) : none;
      const d = g + 3 < rows ? weights_row.columns_of<T>(at + 3 * bytes, i, end, rest) : none;
      const ab = simd.low(a, b);
      const cd = simd.low(c, d);
      const to = panel + ((i - first) * PANEL_ROWS + g) * 4;
      v128.store(to, simd.low_pairs(ab, cd));
      if (i + 1 < end) v128.store(to + 32, simd.high_pairs(ab, cd));
      const ab2 = simd.high(a, b);
      const cd2 = simd.high(c, d);
      if (i + 2 < end) v128.store(to + 64, simd.low_pairs(ab2, cd2));
      if (i + 3 < end) v128.store(to + 96, simd.high_pairs(ab2, cd2));
    }
  }
}

/** sums [TOKEN_TILE][PANEL_ROWS], from 0 or from what they are. */
export function panel_sums(panel: usize, x: usize, columns: u32, go_on: bool, sums: usize): void {
  let a0 = go_on ? v128.load(sums) : f32x4.splat(0);
  let a1 = go_on ? v128.load(sums, 16) : f32x4.splat(0);
  let b0 = go_on ? v128.load(sums, 32) : f32x4.splat(0);
  let b1 = go_on ? v128.load(sums, 48) : f32x4.splat(0);
  let c0 = go_on ? v128.load(sums, 64) : f32x4.splat(0);
  let c1 = go_on ? v128.load(sums, 80) : f32x4.splat(0);
  let d0 = go_on ? v128.load(sums, 96) : f32x4.splat(0);
  let d1 = go_on ? v128.load(sums, 112) : f32x4.splat(0);
  for (const end = panel + columns * 32; panel < end; panel += 32, x += 16) {
    const u = v128.load(panel);
    const v = v128.load(panel, 16);
    let y = v128.load32_splat(x);
    a0 = simd.madd(y, u, a0);
    a1 = simd.madd(y, v, a1);
    y = v128.load32_splat(x, 4);
    b0 = simd.madd(y, u, b0);
    b1 = simd.madd(y, v, b1);
    y = v128.load32_splat(x, 8);
    c0 = simd.madd(y, u, c0);
    c1 = simd.madd(y, v, c1);
    y = v128.load32_splat(x, 12);
    d0 = simd.madd(y, u, d0);
    d1 = simd.madd(y, v, d1);
  }
  v128.store(sums, a0);
  v128.store(sums, a1, 16);
  v128.store(sums, b0, 32);
  v128.store(sums, b1, 48);
  v128.store(sums, c0, 64);
  v128.store(sums, c1, 80);
  v128.store(sums, d0, 96);
  v128.store(sums, d1, 112);
}
