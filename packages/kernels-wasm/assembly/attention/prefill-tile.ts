// Rows (query token x head of one KV head) meet a tile of KEYS keys: logits, weights, sums of the values. Keys are widened
// and transposed to [headDim][KEYS], values widened to [KEYS][pitch], once for all rows. 4 rows x 2 vectors are 8 sums;
// with 2 vectors and a splat, 11 of the 15 registers that V8 gives on x64.
import { math } from "../lib/exp";
import { simd } from "../lib/simd";

/** With heads of 128, 32 KiB of keys and as much of values: they stay in the second-level cache for all rows. */
export const KEYS: u32 = 64;
export const ROW_TILE: u32 = 4;
const KEY_BLOCK: u32 = 8;

/** The keys of a tile: where they lie, -1 for one that is not there; and which part of the tile is. */
@unmanaged
export class KeyTile {
  first: u32;
  end: u32;
  /** Not 0: none is missing between them. */
  whole: u32;
  padding: u32;
  /** [KEYS] i32 behind this; then 16 bytes for the rest of a row, and 16 more. */
  slot(key: u32): i32 {
    return load<i32>(changetype<usize>(this) + key * 4, offsetof<KeyTile>());
  }
  setSlot(key: u32, slot: i32): void {
    store<i32>(changetype<usize>(this) + key * 4, slot, offsetof<KeyTile>());
  }
  rest(): usize {
    return changetype<usize>(this) + offsetof<KeyTile>() + KEYS * 4;
  }
}
export const TILE_BYTES: u32 = 320;

/** Up to four elements of a stored row, 0 behind its end; `i8` ones times their scale. A missing row is 0. */
class stored {
  @inline static part<T>(pages: usize, scales: usize, slot: i32, at: u32, dim: u32, rest: usize): v128 {
    if (slot < 0) return f32x4.splat(0);
    const row = pages + (<u32>slot * dim + at) * sizeof<T>();
    let x: v128;
    if (at + 4 <= dim) x = simd.load<T>(row);
    else {
      v128.store(rest, f32x4.splat(0));
      memory.copy(rest, row, (dim - at) * sizeof<T>());
      x = simd.load<T>(rest);
    }
    return sizeof<T>() == 1 ? f32x4.mul(x, v128.load32_splat(scales + slot * 4)) : x;
  }
}

/** [dim][KEYS], for the keys of the tile. */
export function pack_keys<T>(pages: usize, scales: usize, dim: u32, tile: KeyTile, panel: usize): void {
  const rest = tile.rest();
  for (let g = tile.first & ~3; g < tile.end; g += 4) {
    for (let i: u32 = 0; i < dim; i += 4) {
      const a = stored.part<T>(pages, scales, tile.slot(g), i, dim, rest);
      const b = stored.part<T>(pages, scales, tile.slot(g + 1), i, dim, rest);
      const c = stored.part<T>(pages, scales, tile.slot(g + 2), i, dim, rest);
      const d = stored.part<T>(pages, scales, tile.slot(g + 3), i, dim, rest);
      const ab = simd.low(a, b);
      const cd = simd.low(c, d);
      const to = panel + (i * KEYS + g) * 4;
      v128.store(to, simd.low_pairs(ab, cd));
      if (i + 1 < dim) v128.store(to + KEYS * 4, simd.high_pairs(ab, cd));
      const ab2 = simd.high(a, b);
      const cd2 = simd.high(c, d);
      if (i + 2 < dim) v128.store(to + KEYS * 8, simd.low_pairs(ab2, cd2));
      if (i + 3 < dim) v128.store(to + KEYS * 12, simd.high_pairs(ab2, cd2));
    }
  }
}

/** [KEYS][pitch]. */
export function pack_values<T>(pages: usize, scales: usize, dim: u32, pitch: u32, tile: KeyTile, values: usize): void {
  const rest = tile.rest();
  for (let k = tile.first; k < tile.end; k++) {
    const slot = tile.slot(k);
    for (let i: u32 = 0; i < pitch; i += 4) v128.store(values + (k * pitch + i) * 4, stored.part<T>(pages, scales, slot, i, dim, rest));
  }
}

/** logits [ROW_TILE][KEYS], from key `first` to `end` in blocks of 8, of rows packed as [dim][ROW_TILE]. */
export function key_products(panel: usize, rows: usize, dim: u32, first: u32, end: u32, logits: usize): void {
  const bytes: usize = KEYS * 4;
  for (let k = first & ~(KEY_BLOCK - 1); k < end; k += KEY_BLOCK) {
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let b0 = a0;
    let b1 = a0;
    let c0 = a0;
    let c1 = a0;
    let d0 = a0;
    let d1 = a0;
    let x = rows;
    for (let key = panel + k * 4, last = key + dim * bytes; key < last; key += bytes, x += 16) {
      const u = v128.load(key);
      const v = v128.load(key, 16);
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
    const to = logits + k * 4;
    v128.store(to, a0);
    v128.store(to, a1, 16);
    v128.store(to + bytes, b0);
    v128.store(to + bytes, b1, 16);
    v128.store(to + 2 * bytes, c0);
    v128.store(to + 2 * bytes, c1, 16);
    v128.store(to + 3 * bytes, d0);
    v128.store(to + 3 * bytes, d1, 16);
  }
}

/** sums [ROW_TILE][pitch] += weights [ROW_TILE][KEYS] x values, of keys first to end. */
export function value_products(weights: usize, values: usize, pitch: u32, first: u32, end: u32, sums: usize): void {
  let at: u32 = 0;
  for (; at + 8 <= pitch; at += 8) add_products<i16>(weights, values, pitch, first, end, at, sums);
  if (at < pitch) add_products<i8>(weights, values, pitch, first, end, at, sums);
}

/** One (V: i8) or two (i16) vectors of each row. */
function add_products<V>(weights: usize, values: usize, pitch: u32, first: u32, end: u32, at: u32, sums: usize): void {
  const two = sizeof<V>() == 2;
  const bytes: usize = pitch * 4;
  const a = sums + at * 4;
  const b = a + bytes;
  const c = b + bytes;
  const d = c + bytes;
  let a0 = v128.load(a);
  let b0 = v128.load(b);
  let c0 = v128.load(c);
  let d0 = v128.load(d);
  let a1 = two ? v128.load(a, 16) : a0;
  let b1 = two ? v128.load(b, 16) : a0;
  let c1 = two ? v128.load(c, 16) : a0;
  let d1 = two ? v128.load(d, 16) : a0;
  let x = values + (first * pitch + at) * 4;
  for (let w = weights + first * 4, last = weights + end * 4; w < last; w += 4, x += bytes) {
    const u = v128.load(x);
    const v = two ? v128.load(x, 16) : u;
    let y = v128.load32_splat(w);
    a0 = simd.madd(y, u, a0);
    if (two) a1 = simd.madd(y, v, a1);
    y = v128.load32_splat(w, KEYS * 4);
    b0 = simd.madd(y, u, b0);
    if (two) b1 = simd.madd(y, v, b1);
    y = v128.load32_splat(w, KEYS * 8);
    c0 = simd.madd(y, u, c0);
    if (two) c1 = simd.madd(y, v, c1);
    y = v128.load32_splat(w, KEYS * 12);
    d0 = simd.madd(y, u, d0);
    if (two) d1 = simd.madd(y, v, d1);
  }
  v128.store(a, a0);
  v128.store(b, b0);
  v128.store(c, c0);
  v128.store(d, d0);
  if (!two) return;
  v128.store(a, a1, 16);
  v128.store(b, b1, 16);
  v128.store(c, c1, 16);
  v128.store(d, d1, 16);
}

/** The same of one row. */
export function add_alone(weights: usize, values: usize, pitch: u32, first: u32, end: u32, sums: usize): void {
  for (let k = first; k < end; k++) {
    const y = v128.load32_splat(weights + k * 4);
    const row = values + k * pitch * 4;
    for (let i: usize = 0; i < <usize>pitch * 4; i += 16) v128.store(sums + i, simd.madd(y, v128.load(row + i), v128.load(sums + i)));
  }
}

/** Dot products to weights; what the row does not see gets weight 0. `state`: largest, sum. Sums are made relative to the new largest. */
export function weigh_row(
  tile: KeyTile,
  first: u32,
  end: u32,
  scale: f32,
  cap: f32,
  logits: usize,
  state: usize,
  sums: usize,
  pitch: u32,
): void {
  const scales = f32x4.splat(scale);
  const caps = f32x4.splat(cap);
  const last = logits + KEYS * 4;
  for (let at = logits; at < last; at += 16) {
    let x = f32x4.mul(v128.load(at), scales);
    if (cap > 0) x = f32x4.mul(caps, math.tanh(f32x4.div(x, caps)));
    v128.store(at, x);
  }
  for (let k: u32 = 0; k < first; k++) store<f32>(logits + k * 4, -Infinity);
  for (let k = end; k < KEYS; k++) store<f32>(logits + k * 4, -Infinity);
  if (!tile.whole) for (let k = first; k < end; k++) if (tile.slot(k) < 0) store<f32>(logits + k * 4, -Infinity);
  const before = load<f32>(state);
  let most = f32x4.splat(before);
  // A NaN is passed over here: it comes back as a weight.
  for (let at = logits; at < last; at += 16) most = f32x4.pmax(most, v128.load(at));
  const pairs = f32x4.pmax(most, v128.shuffle<i32>(most, most, 2, 3, 0, 1));
  const all = f32x4.pmax(pairs, v128.shuffle<i32>(pairs, pairs, 1, 0, 3, 2));
  const largest = f32x4.extract_lane(all, 0);
  const base = math.base(all);
  let sum = f32x4.splat(0);
  for (let at = logits; at < last; at += 16) {
    const weight = math.exp(f32x4.sub(v128.load(at), base));
    sum = f32x4.add(sum, weight);
    v128.store(at, weight);
  }
  const added = f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + (f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3));
  const factor: f32 = largest == before ? 1 : before == -Infinity ? 0 : f32x4.extract_lane(math.exp(f32x4.splat(before - largest)), 0);
  const total = load<f32>(state, 4);
  store<f32>(state, largest);
  store<f32>(state, (total == 0 ? 0 : total * factor) + added, 4);
  if (factor == 1) return;
  const by = f32x4.splat(factor);
  for (let i: usize = 0; i < <usize>pitch * 4; i += 16) v128.store(sums + i, f32x4.mul(v128.load(sums + i), by));
}
