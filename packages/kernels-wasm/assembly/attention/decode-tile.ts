// A tile of tokens meets four query heads of one KV head: logits, weights, and the sum of the values. The heads are
// the lanes of a vector, so that softmax needs no sums across lanes.
//
// Sums held in registers, of the 15 that V8 gives on x64: 2 keys x 4 heads (8 sums, 2 keys, a query: 11); 2 vectors of
// values x 4 heads (8 sums, 2 values, a weight: 11).
import { math } from "../lib/exp";
import { simd } from "../lib/simd";
import { Decode, STATE_VALUES } from "./decode-shape";

// Values are added in runs of so many tokens, with sums in registers: rows are read in order, as memory likes it.
const VALUE_RUN: u32 = 8;

/** logits [tokens][4]: dot products of rows that fill whole vectors; an odd row is met twice. */
export function key_dots<T>(rows: usize, tokens: u32, dim: u32, queries: usize, pitch: u32, logits: usize): void {
  const step: usize = 4 * sizeof<T>();
  const bytes: usize = pitch * 4;
  for (let r: u32 = 0; r < tokens; r += 2) {
    let x0 = load<usize>(rows + r * 4);
    let x1 = load<usize>(rows + r * 4, 4);
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let b0 = a0;
    let b1 = a0;
    let c0 = a0;
    let c1 = a0;
    let d0 = a0;
    let d1 = a0;
    for (let q = queries, end = queries + dim * 4; q < end; q += 16) {
      const x = simd.load<T>(x0);
      const y = simd.load<T>(x1);
      let query = v128.load(q);
      a0 = simd.madd(x, query, a0);
      a1 = simd.madd(y, query, a1);
      query = v128.load(q + bytes);
      b0 = simd.madd(x, query, b0);
      b1 = simd.madd(y, query, b1);
      query = v128.load(q + 2 * bytes);
      c0 = simd.madd(x, query, c0);
      c1 = simd.madd(y, query, c1);
      query = v128.load(q + 3 * bytes);
      d0 = simd.madd(x, query, d0);
      d1 = simd.madd(y, query, d1);
      x0 += step;
      x1 += step;
    }
    v128.store(logits + r * 16, simd.sum4(a0, b0, c0, d0));
    v128.store(logits + r * 16, simd.sum4(a1, b1, c1, d1), 16);
  }
}

/** Weights times the value scales: `weigh` does so, but where the weights themselves are wanted first. */
export function scale_weights(decode: Decode, tokens: u32, weights: usize): void {
  let scales = decode.value_scales();
  for (const end = weights + tokens * 16; weights < end; weights += 16, scales += 4)
    v128.store(weights, f32x4.mul(v128.load(weights), v128.load32_splat(scales)));
}

/**
 * Dot products to weights exp(logit - largest), times the value scales unless `bare`; `bias` [tokens][4], unless 0, joins the
 * logits. `state`: largest [4] and sum [4] so far, and
 * the values that belong to them, which are scaled to the new largest.
 */
export function weigh(decode: Decode, tokens: u32, scaled: bool, bare: bool, bias: usize, logits: usize, state: usize): void {
  const params = decode.params;
  const scale = f32x4.splat(params.scale);
  const before = v128.load(state);
  const end = logits + tokens * 16;
  let scales = decode.key_scales();
  for (let at = logits; at < end; at += 16) {
    let x = f32x4.mul(v128.load(at), scale);
    if (scaled) {
      x = f32x4.mul(x, v128.load32_splat(scales));
      scales += 4;
    }
    v128.store(at, x);
  }
  if (params.soft_cap > 0) cap_logits(logits, end, params.soft_cap);
  if (bias != 0) add_bias(bias, logits, end);
  let largest = before;
  for (let at = logits; at < end; at += 16) {
    const x = v128.load(at);
    // One instruction, where the maximum takes seven. A NaN is passed over here: it comes back as a weight.
    largest = f32x4.pmax(largest, x);
  }
  // No logit above -Inf: weights are 0, or NaN where a logit is.
  const base = math.base(largest);
  let sum = f32x4.splat(0);
  scales = decode.value_scales();
  for (let at = logits; at < end; at += 16) {
    let weight = math.exp(f32x4.sub(v128.load(at), base));
    sum = f32x4.add(sum, weight);
    if (scaled && !bare) {
      weight = f32x4.mul(weight, v128.load32_splat(scales));
      scales += 4;
    }
    v128.store(at, weight);
  }
  v128.store(state, largest);
  const same = f32x4.eq(before, largest);
  // Before the first logit the sums are 0, and stay 0.
  const factor = v128.bitselect(f32x4.splat(1), math.exp(f32x4.sub(before, base)), same);
  v128.store(state, f32x4.add(f32x4.mul(v128.load(state, 16), factor), sum), 16);
  if (i32x4.all_true(same)) return;
  const bytes: usize = decode.value_pitch * 4;
  let values = state + STATE_VALUES;
  for (let head: u32 = 0; head < 4; head++, values += bytes) {
    const by =
      head == 0
        ? v128.shuffle<i32>(factor, factor, 0, 0, 0, 0)
        : head == 1
          ? v128.shuffle<i32>(factor, factor, 1, 1, 1, 1)
          : head == 2
            ? v128.shuffle<i32>(factor, factor, 2, 2, 2, 2)
            : v128.shuffle<i32>(factor, factor, 3, 3, 3, 3);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(values + i, f32x4.mul(v128.load(values + i), by));
  }
}

function cap_logits(logits: usize, end: usize, cap: f32): void {
  const caps = f32x4.splat(cap);
  for (let at = logits; at < end; at += 16) v128.store(at, f32x4.mul(caps, math.tanh(f32x4.div(v128.load(at), caps))));
}

function add_bias(bias: usize, logits: usize, end: usize): void {
  for (let at = logits; at < end; at += 16, bias += 16) v128.store(at, f32x4.add(v128.load(at), v128.load(bias)));
}

/** values [4][pitch] += weights [tokens][4] x rows that fill whole vectors. */
export function value_sums<T>(rows: usize, tokens: u32, dim: u32, weights: usize, values: usize, pitch: u32): void {
  for (let run: u32 = 0; run < tokens; run += VALUE_RUN) {
    const n = min(tokens - run, VALUE_RUN);
    let at: u32 = 0;
    for (; at + 8 <= dim; at += 8) add_values<T, i16>(rows + run * 4, n, at, weights + run * 16, values, pitch);
    if (at < dim) add_values<T, i8>(rows + run * 4, n, at, weights + run * 16, values, pitch);
  }
}

/** One (V: i8) or two (i16) vectors of each row, from element `at` on. */
function add_values<T, V>(rows: usize, tokens: u32, at: u32, weights: usize, values: usize, pitch: u32): void {
  const two = sizeof<V>() == 2;
  const offset: usize = at * sizeof<T>();
  const bytes: usize = pitch * 4;
  const a = values + at * 4;
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
  for (const end = weights + tokens * 16; weights < end; weights += 16, rows += 4) {
    const row = load<usize>(rows) + offset;
    const x = two ? simd.first<T>(row) : simd.load<T>(row);
    const y = two ? simd.second<T>(row) : x;
    let weight = v128.load32_splat(weights);
    a0 = simd.madd(weight, x, a0);
    if (two) a1 = simd.madd(weight, y, a1);
    weight = v128.load32_splat(weights, 4);
    b0 = simd.madd(weight, x, b0);
    if (two) b1 = simd.madd(weight, y, b1);
    weight = v128.load32_splat(weights, 8);
    c0 = simd.madd(weight, x, c0);
    if (two) c1 = simd.madd(weight, y, c1);
    weight = v128.load32_splat(weights, 12);
    d0 = simd.madd(weight, x, d0);
    if (two) d1 = simd.madd(weight, y, d1);
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

/** Rows as floats with zeros behind them; their addresses replace those at `rows`. */
export function widen_rows<T>(rows: usize, tokens: u32, dim: u32, pitch: u32, to: usize): void {
  const whole = dim & ~3;
  for (let i: u32 = 0; i < tokens; i++, to += pitch * 4) {
    const row = load<usize>(rows + i * 4);
    for (let d: u32 = 0; d < whole; d += 4) v128.store(to + d * 4, simd.load<T>(row + d * sizeof<T>()));
    if (whole < pitch) {
      // The rest of a row, in a vector of zeros at the place where it will lie.
      const rest = to + whole * 4;
      v128.store(rest, f32x4.splat(0));
      memory.copy(rest, row + whole * sizeof<T>(), (dim - whole) * sizeof<T>());
      v128.store(rest, simd.load<T>(rest));
    }
    store<usize>(rows + i * 4, to);
  }
  if (tokens & 1) store<usize>(rows + tokens * 4, load<usize>(rows + tokens * 4 - 4));
}
