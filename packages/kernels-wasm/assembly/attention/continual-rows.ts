// Rows of continual attention: sums of exp(logit) and of values so weighted, relative to a whole power of two, so that rows
// are rescaled without rounding and a pair of query and key has the same weight whenever it is met. Static methods: see simd.ts.
import { simd } from "../lib/simd";

/** Where a stream stands when a token arrives; `held` is 0 where `steps` cannot be. */
export class turn {
  @inline static sound(steps: i32, window: u32): bool {
    return steps >= 0 && <u32>steps < 2 * window;
  }
  @inline static full(steps: u32, window: u32): bool {
    return steps >= window;
  }
  @inline static slot(steps: u32, window: u32): u32 {
    return steps % window;
  }
  @inline static held(steps: u32, window: u32): u32 {
    return min(steps + 1, window);
  }
  @inline static oldest(steps: u32, window: u32): u32 {
    return steps >= window ? (steps + 1) % window : 0;
  }

  /** Counts the streams' steps, those in range. */
  static count(steps: usize, streams: u32, window: u32): void {
    for (let at = steps; at < steps + streams * 4; at += 4) {
      const now = load<i32>(at);
      if (turn.sound(now, window)) store<i32>(at, <u32>now + 1 == 2 * window ? window : <u32>now + 1);
    }
  }
}

export class rows {
  /** The lanes of a vector, added up. */
  @inline static total(x: v128): f32 {
    return f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1) + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3));
  }

  /** One order for every pair, so that its weight has the same bits wherever it is computed. */
  static dot(a: usize, b: usize, bytes: usize): f32 {
    let even = f32x4.splat(0);
    let odd = even;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      even = simd.madd(v128.load(a + i), v128.load(b + i), even);
      odd = simd.madd(v128.load(a + i, 16), v128.load(b + i, 16), odd);
    }
    if (i + 16 <= bytes) {
      even = simd.madd(v128.load(a + i), v128.load(b + i), even);
      i += 16;
    }
    let rest: f32 = 0;
    for (; i < bytes; i += 4) rest += load<f32>(a + i) * load<f32>(b + i);
    return rows.total(f32x4.add(even, odd)) + rest;
  }

  /** The power of two that exp(logit) is taken relative to. */
  @inline static power(logit: v128): v128 {
    const magic = f32x4.splat(12582912);
    const turns = f32x4.mul(logit, f32x4.splat(1.44269504));
    // The pseudo forms keep a NaN that comes first.
    const bounded = f32x4.pmin(f32x4.pmax(turns, f32x4.splat(-2097152)), f32x4.splat(2097152));
    return f32x4.sub(f32x4.add(bounded, magic), magic);
  }

  /** exp(logit) / 2^power; NaN where the logit is not finite. As math.exp, with the two kept apart. */
  @inline static part(logit: v128, power: v128): v128 {
    let r = simd.madd(power, f32x4.splat(2.1219444e-4), simd.madd(power, f32x4.splat(-0.693359375), logit));
    // Beyond 2^14 a logit is less exact than r; its weight stays a sound number.
    r = f32x4.pmin(f32x4.pmax(r, f32x4.splat(-0.36)), f32x4.splat(0.36));
    let p = simd.madd(f32x4.splat(0.0013933652), r, f32x4.splat(0.0083631817));
    p = simd.madd(p, r, f32x4.splat(0.041666467));
    p = simd.madd(p, r, f32x4.splat(0.16666576));
    p = simd.madd(p, r, f32x4.splat(0.5));
    const whole = simd.madd(f32x4.mul(p, r), r, f32x4.add(r, f32x4.splat(1)));
    return f32x4.add(whole, f32x4.mul(logit, f32x4.splat(0)));
  }

  /** 2^power, 0 below the smallest normal number. */
  @inline static scale(power: v128): v128 {
    const bounded = f32x4.min(f32x4.max(power, f32x4.splat(-127)), f32x4.splat(127));
    return i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(bounded), i32x4.splat(127)), 23);
  }

  /**
   * The softmax of a query over `held` keys, unnormalised: weighted values, and behind them their power and the sum of
   * weights. `logits` has room for twice the keys in whole vectors.
   */
  static exact(query: usize, keys: usize, values: usize, held: u32, bytes: usize, scale: f32, logits: usize, out: usize): void {
    const end: usize = ((<usize>held + 3) & ~3) * 4;
    const powers = logits + end;
    for (let t: u32 = 0; t < held; t++) store<f32>(logits + t * 4, rows.dot(query, keys + t * bytes, bytes) * scale);
    for (let at: usize = <usize>held * 4; at < end; at += 4) store<f32>(logits + at, load<f32>(logits));
    let top = f32x4.splat(-4194304);
    for (let at: usize = 0; at < end; at += 16) {
      const logit = v128.load(logits + at);
      const power = rows.power(logit);
      v128.store(logits + at, rows.part(logit, power));
      v128.store(powers + at, power);
      // NaNs are never the largest; they come in through their parts.
      top = f32x4.pmax(top, power);
    }
    const pair = f32x4.pmax(top, simd.high_pairs(top, top));
    const largest = max(f32x4.extract_lane(pair, 0), f32x4.extract_lane(pair, 1));
    for (let at: usize = 0; at < end; at += 16) {
      const weight = f32x4.mul(v128.load(logits + at), rows.scale(f32x4.sub(v128.load(powers + at), f32x4.splat(largest))));
      v128.store(logits + at, weight);
    }
    let sum: f32 = 0;
    for (let t: u32 = 0; t < held; t++) sum += load<f32>(logits + t * 4);
    let i: usize = 0;
    for (; i + 64 <= bytes; i += 64) {
      let a = f32x4.splat(0);
      let b = a;
      let c = a;
      let d = a;
      for (let t: u32 = 0; t < held; t++) {
        const weight = v128.load32_splat(logits + t * 4);
        const value = values + t * bytes + i;
        a = simd.madd(weight, v128.load(value), a);
        b = simd.madd(weight, v128.load(value, 16), b);
        c = simd.madd(weight, v128.load(value, 32), c);
        d = simd.madd(weight, v128.load(value, 48), d);
      }
      v128.store(out + i, a);
      v128.store(out + i, b, 16);
      v128.store(out + i, c, 32);
      v128.store(out + i, d, 48);
    }
    for (; i + 16 <= bytes; i += 16) {
      let a = f32x4.splat(0);
      for (let t: u32 = 0; t < held; t++) a = simd.madd(v128.load32_splat(logits + t * 4), v128.load(values + t * bytes + i), a);
      v128.store(out + i, a);
    }
    for (; i < bytes; i += 4) {
      let a: f32 = 0;
      for (let t: u32 = 0; t < held; t++) a += load<f32>(logits + t * 4) * load<f32>(values + t * bytes + i);
      store<f32>(out + i, a);
    }
    // Where the first logits were.
    store<f32>(logits, largest);
    store<f32>(logits, sum, 4);
  }

  /** out = weighted / sum, with NaN for what is not finite; whether all of it was. */
  static divide(weighted: usize, sum: f32, bytes: usize, out: usize): bool {
    let sound = true;
    for (let i: usize = 0; i < bytes; i += 4) {
      const value = load<f32>(weighted + i) / sum;
      const finite = abs(value) <= f32.MAX_VALUE;
      store<f32>(out + i, finite ? value : NaN);
      sound = sound && finite;
    }
    return sound;
  }
}
