// Products of rows of expert weights with rows of numbers, in runs of 512: f32 sums of a run, added in the order of the
// runs, so that a row's bits do not depend on how many others it is computed with. Weights: f32, u16 for f16, i8 for q8_0.
import { Q8, Q8_BYTES, q8 } from "../lib/q8";
import { simd } from "../lib/simd";

/** Numbers are met 32 at a time: a block of q8_0. */
export const UNIT: u32 = Q8;
export const RUN_UNITS: u32 = 16;
/** Rows of weights of a task, and rows of numbers that share their widening. */
export const TILE_ROWS: u32 = 32;
export const GROUP_ROWS: u32 = 64;
/** Rows of numbers that meet two rows of weights in registers. */
const QUERIES: u32 = 4;

/** A tile of weights: `n` rows of one expert's matrix, `width` numbers each. */
@unmanaged
export class WeightTile {
  rows: usize;
  row_bytes: usize;
  n: u32;
  width: u32;
}

export function unit_bytes<T>(): usize {
  return sizeof<T>() == 1 ? Q8_BYTES : UNIT * sizeof<T>();
}
export function weight_row_bytes<T>(width: u32): usize {
  return sizeof<T>() == 1 ? <usize>((width + UNIT - 1) / UNIT) * Q8_BYTES : <usize>width * sizeof<T>();
}
function whole_units<T>(width: u32): u32 {
  return sizeof<T>() == 1 ? (width + UNIT - 1) / UNIT : width / UNIT;
}

/** The scale of a unit; 1 where it has none. */
function scale_of<T>(unit: usize): v128 {
  return sizeof<T>() == 1 ? q8.scale(unit) : f32x4.splat(1);
}
function first_of<T>(unit: usize, i: usize, scale: v128): v128 {
  return sizeof<T>() == 1 ? f32x4.mul(simd.first<i8>(unit + 2 + i), scale) : simd.first<T>(unit + i * sizeof<T>());
}
function second_of<T>(unit: usize, i: usize, scale: v128): v128 {
  return sizeof<T>() == 1 ? f32x4.mul(simd.second<i8>(unit + 2 + i), scale) : simd.second<T>(unit + i * sizeof<T>());
}

/** sums [rows] += the products of four rows of weights with one row of numbers over one run. */
function run_1x4<T>(weights: usize, row_bytes: usize, rows: u32, x: usize, units: u32, sums: usize): void {
  let w0 = weights;
  let w1 = weights + (rows > 1 ? row_bytes : 0);
  let w2 = weights + (rows > 2 ? 2 * row_bytes : 0);
  let w3 = weights + (rows > 3 ? 3 * row_bytes : 0);
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  for (let u: u32 = 0; u < units; u++) {
    const s0 = scale_of<T>(w0);
    const s1 = scale_of<T>(w1);
    const s2 = scale_of<T>(w2);
    const s3 = scale_of<T>(w3);
    for (let i: usize = 0; i < UNIT; i += 8) {
      const y = v128.load(x + i * 4);
      a = simd.madd(first_of<T>(w0, i, s0), y, a);
      b = simd.madd(first_of<T>(w1, i, s1), y, b);
      c = simd.madd(first_of<T>(w2, i, s2), y, c);
      d = simd.madd(first_of<T>(w3, i, s3), y, d);
      const z = v128.load(x + i * 4, 16);
      a = simd.madd(second_of<T>(w0, i, s0), z, a);
      b = simd.madd(second_of<T>(w1, i, s1), z, b);
      c = simd.madd(second_of<T>(w2, i, s2), z, c);
      d = simd.madd(second_of<T>(w3, i, s3), z, d);
    }
    x += UNIT * 4;
    w0 += unit_bytes<T>();
    w1 += unit_bytes<T>();
    w2 += unit_bytes<T>();
    w3 += unit_bytes<T>();
  }
  const sum = simd.sum4(a, b, c, d);
  add_to(sums, f32x4.extract_lane(sum, 0));
  if (rows > 1) add_to(sums + 4, f32x4.extract_lane(sum, 1));
  if (rows > 2) add_to(sums + 8, f32x4.extract_lane(sum, 2));
  if (rows > 3) add_to(sums + 12, f32x4.extract_lane(sum, 3));
}

/** sums [queries][TILE_ROWS] += the products of two rows of weights with up to four rows of numbers over one run. */
function run_4x2<T>(weights: usize, row_bytes: usize, rows: u32, x: usize, queries: u32, offset: usize, units: u32, sums: usize): void {
  let w0 = weights;
  let w1 = weights + (rows > 1 ? row_bytes : 0);
  let x0 = load<usize>(x) + offset;
  let x1 = load<usize>(x + (queries > 1 ? 4 : 0)) + offset;
  let x2 = load<usize>(x + (queries > 2 ? 8 : 0)) + offset;
  let x3 = load<usize>(x + (queries > 3 ? 12 : 0)) + offset;
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let b0 = a0;
  let b1 = a0;
  let c0 = a0;
  let c1 = a0;
  let d0 = a0;
  let d1 = a0;
  for (let u: u32 = 0; u < units; u++) {
    const s0 = scale_of<T>(w0);
    const s1 = scale_of<T>(w1);
    for (let i: usize = 0; i < UNIT; i += 8) {
      let p = first_of<T>(w0, i, s0);
      let q = first_of<T>(w1, i, s1);
      let y = v128.load(x0 + i * 4);
      a0 = simd.madd(p, y, a0);
      a1 = simd.madd(q, y, a1);
      y = v128.load(x1 + i * 4);
      b0 = simd.madd(p, y, b0);
      b1 = simd.madd(q, y, b1);
      y = v128.load(x2 + i * 4);
      c0 = simd.madd(p, y, c0);
      c1 = simd.madd(q, y, c1);
      y = v128.load(x3 + i * 4);
      d0 = simd.madd(p, y, d0);
      d1 = simd.madd(q, y, d1);
      p = second_of<T>(w0, i, s0);
      q = second_of<T>(w1, i, s1);
      y = v128.load(x0 + i * 4, 16);
      a0 = simd.madd(p, y, a0);
      a1 = simd.madd(q, y, a1);
      y = v128.load(x1 + i * 4, 16);
      b0 = simd.madd(p, y, b0);
      b1 = simd.madd(q, y, b1);
      y = v128.load(x2 + i * 4, 16);
      c0 = simd.madd(p, y, c0);
      c1 = simd.madd(q, y, c1);
      y = v128.load(x3 + i * 4, 16);
      d0 = simd.madd(p, y, d0);
      d1 = simd.madd(q, y, d1);
    }
    w0 += unit_bytes<T>();
    w1 += unit_bytes<T>();
    x0 += UNIT * 4;
    x1 += UNIT * 4;
    x2 += UNIT * 4;
    x3 += UNIT * 4;
  }
  const first = simd.sum4(a0, b0, c0, d0);
  const second = simd.sum4(a1, b1, c1, d1);
  add_pair(sums, f32x4.extract_lane(first, 0), f32x4.extract_lane(second, 0), rows);
  if (queries > 1) add_pair(sums + TILE_ROWS * 4, f32x4.extract_lane(first, 1), f32x4.extract_lane(second, 1), rows);
  if (queries > 2) add_pair(sums + TILE_ROWS * 8, f32x4.extract_lane(first, 2), f32x4.extract_lane(second, 2), rows);
  if (queries > 3) add_pair(sums + TILE_ROWS * 12, f32x4.extract_lane(first, 3), f32x4.extract_lane(second, 3), rows);
}

function add_to(at: usize, value: f32): void {
  store<f32>(at, load<f32>(at) + value);
}
function add_pair(at: usize, first: f32, second: f32, rows: u32): void {
  add_to(at, first);
  if (rows > 1) add_to(at + 4, second);
}

/**
 * sums [count][TILE_ROWS] += runs [from, to) of units of a tile, for `count` rows of numbers. `x`: their addresses; `shift`: units
 * that the numbers are ahead of the weights.
 */
function each_queries<T>(tile: WeightTile, x: usize, count: u32, from: u32, to: u32, shift: u32, sums: usize): void {
  for (let q: u32 = 0; q < count; q += QUERIES) {
    const queries = min(QUERIES, count - q);
    const step: u32 = queries == 1 ? 4 : 2;
    for (let row: u32 = 0; row < tile.n; row += step) {
      const rows = min(step, tile.n - row);
      for (let at = from; at < to; at += RUN_UNITS) {
        const units = min(RUN_UNITS, to - at);
        const weights = tile.rows + row * tile.row_bytes + at * unit_bytes<T>();
        const offset = <usize>(at + shift) * UNIT * 4;
        const out = sums + <usize>(q * TILE_ROWS + row) * 4;
        if (queries == 1) run_1x4<T>(weights, tile.row_bytes, rows, load<usize>(x + q * 4) + offset, units, out);
        else run_4x2<T>(weights, tile.row_bytes, rows, x + q * 4, queries, offset, units, out);
      }
    }
  }
}

/** Weights of a tile over some units as f32, [n][units * UNIT]. */
function widen_tile<T>(tile: WeightTile, from: u32, units: u32, out: usize): void {
  for (let row: u32 = 0; row < tile.n; row++)
    for (let u: u32 = 0; u < units; u++) {
      const unit = tile.rows + row * tile.row_bytes + (from + u) * unit_bytes<T>();
      const scale = scale_of<T>(unit);
      for (let i: usize = 0; i < UNIT; i += 8) {
        v128.store(out + i * 4, first_of<T>(unit, i, scale));
        v128.store(out + i * 4, second_of<T>(unit, i, scale), 16);
      }
      out += UNIT * 4;
    }
}

/** The rest of rows that are no whole units, filled up with zeros, [n][UNIT]. */
function widen_rest<T>(tile: WeightTile, from: u32, out: usize): void {
  const rest = tile.width - from * UNIT;
  memory.fill(out, 0, tile.n * UNIT * 4);
  for (let row: u32 = 0; row < tile.n; row++) {
    const weights = tile.rows + row * tile.row_bytes + <usize>from * UNIT * sizeof<T>();
    for (let i: u32 = 0; i < rest; i++) {
      const to = out + (row * UNIT + i) * 4;
      if (isFloat<T>()) store<f32>(to, load<f32>(weights + i * 4));
      else store<f32>(to, f32x4.extract_lane(simd.widen_f16(i32x4.splat(<i32>load<i16>(weights + i * 2))), 0));
    }
  }
}

/**
 * sums [count][TILE_ROWS] = products of a tile with `count` rows of numbers, each in whole units with zeros behind. `wide`: room
 * for a tile of RUN_UNITS as f32; `spare`: for a WeightTile.
 */
export function products<T>(tile: WeightTile, x: usize, count: u32, sums: usize, wide: usize, spare: usize): void {
  const units = whole_units<T>(tile.width);
  memory.fill(sums, 0, count * TILE_ROWS * 4);
  const widened = changetype<WeightTile>(spare);
  widened.rows = wide;
  widened.n = tile.n;
  if (count <= QUERIES) {
    // Weights are met once: rows are read from end to end, as memory likes it.
    each_queries<T>(tile, x, count, 0, units, 0, sums);
  } else {
    for (let at: u32 = 0; at < units; at += RUN_UNITS) {
      const n = min(RUN_UNITS, units - at);
      if (isFloat<T>()) {
        each_queries<T>(tile, x, count, at, at + n, 0, sums);
        continue;
      }
      widen_tile<T>(tile, at, n, wide);
      widened.row_bytes = n * UNIT * 4;
      each_queries<f32>(widened, x, count, 0, n, at, sums);
    }
  }
  if (sizeof<T>() == 1 || tile.width == units * UNIT) return;
  widen_rest<T>(tile, units, wide);
  widened.row_bytes = UNIT * 4;
  each_queries<f32>(widened, x, count, 0, 1, units, sums);
}
