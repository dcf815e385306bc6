// exp, sine and cosine in f64 from plain operations. Without tables: a build has no data of its own in the memory, which
// TypeScript lays out.

const LOG2_E: f64 = 1.4426950408889634;
/** 1.5 * 2^52: adding it rounds to whole numbers. */
const MAGIC: f64 = 6755399441055744;

export class wide {
  /** exp(x) within 2 units of the last place for x from -708 to 700; 0 below. The same bits as canonical.ts of logits/sample. */
  static exp(x: f64): f64 {
    if (!(x >= -708)) return 0;
    const n = x * LOG2_E + MAGIC - MAGIC;
    const r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
    let p: f64 = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 1.0 / 2.0;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * reinterpret<f64>((<i64>n + 1023) << 52);
  }

  /** The sine of x + quarters * pi / 2; the cosine is that of one quarter more. For |x| to 2^31. */
  static sine(x: f64, quarters: i64): f64 {
    const n = x * 0.6366197723675814 + MAGIC - MAGIC;
    // pi / 2 in three parts of 33 bits: exact products for |x| to 2^20.
    const r = x - n * 1.5707963267341256 - n * 6.077100506303966e-11 - n * 2.0222662487959506e-21;
    const quarter = (<i64>n + quarters) & 3;
    const z = r * r;
    let value: f64;
    if (quarter & 1) {
      // The series of the cosine, to r^16.
      let p: f64 = 1.0 / 20922789888000.0;
      p = 1.0 / 87178291200.0 - p * z;
      p = 1.0 / 479001600.0 - p * z;
      p = 1.0 / 3628800.0 - p * z;
      p = 1.0 / 40320.0 - p * z;
      p = 1.0 / 720.0 - p * z;
      p = 1.0 / 24.0 - p * z;
      value = 1.0 - z * (0.5 - z * p);
    } else {
      let p: f64 = 1.0 / 355687428096000.0;
      p = 1.0 / 1307674368000.0 - p * z;
      p = 1.0 / 6227020800.0 - p * z;
      p = 1.0 / 39916800.0 - p * z;
      p = 1.0 / 362880.0 - p * z;
      p = 1.0 / 5040.0 - p * z;
      p = 1.0 / 120.0 - p * z;
      p = 1.0 / 6.0 - p * z;
      value = r - r * z * p;
    }
    return quarter & 2 ? -value : value;
  }
}
