/**
 * What a code's score says of its row's: from the canonical score of a code (search/scan over the codes) a range in
 * which the canonical score of the row lies, as a number of which larger is better (under l2: minus the distance).
 *
 * With m the centre of the codes and c a row's code, so that x is about m + c:
 *
 * ip:  |<q, x> - <q, m> - <q, c>| <= |q| |x - m - c|           (Cauchy-Schwarz)
 * cos: the same with q and x at length 1
 * l2:  ||q - x| - |(q - m) - c|| <= |x - m - c|                (triangle inequality)
 *
 * plus the roundings of both canonical scores: sums in f64, rounded once to f32. `high` rises with the score and with
 * the error, so the bound of the worst code that was returned holds for all that were not.
 */
import type { Metric } from "../scan/reference.js";

const f32Max = (2 - 2 ** -23) * 2 ** 127;

/** A query, as bounds need it. */
export interface Aim {
  /** Its Euclidean length, in f64. */
  readonly length: number;
  /** ip and cos: <q, m> in f64, of the query at length 1 under cos. */
  readonly offset: number;
}

export class Bounds {
  low = Number.NEGATIVE_INFINITY;
  high = Number.POSITIVE_INFINITY;
  readonly #metric: Metric;
  readonly #dim: number;
  #length = 0;
  #offset = 0;
  #longest = 0;
  #rounded = 0;

  constructor(metric: Metric, dim: number) {
    this.#metric = metric;
    this.#dim = dim;
  }

  /** `longest`: at least every RowCode's `length`; `centre`: the length of m. */
  aim({ length, offset }: Aim, longest: number, centre: number): void {
    const grown = 1 + 2 ** -20;
    this.#length = (this.#metric === "cos" ? 1 : length) * grown;
    this.#offset = offset;
    this.#longest = longest + centre * grown;
    // q - m is rounded to f32 once, from f64.
    this.#rounded = (length + centre) * grown * 2 ** -23 + 2 ** -120;
  }

  /** Sets `low` and `high` for a row whose code scores `score` (f32) and loses `error`. */
  set(score: number, error: number): void {
    this.low = Number.NEGATIVE_INFINITY;
    this.high = Number.POSITIVE_INFINITY;
    // Beyond f32 a score says nothing.
    if (!Number.isFinite(score)) return;
    if (this.#metric === "l2") this.#distance(score, error);
    else this.#product(score, error);
    if (this.high > f32Max) this.high = Number.POSITIVE_INFINITY;
    if (!(this.low >= -f32Max)) this.low = Number.NEGATIVE_INFINITY;
  }

  #product(score: number, error: number): void {
    // Under cos the query is brought to length 1 and rounded to f32, and both norms are rounded: 2^-24 and 4 dim 2^-53.
    const relative = this.#metric === "cos" ? 2 ** -23 + (this.#dim + 8) * 2 ** -51 : (this.#dim + 8) * 2 ** -52;
    const centred = score + this.#offset;
    const margin = this.#length * (error + this.#longest * relative) + (Math.abs(score) + Math.abs(centred)) * 2 ** -23;
    // The last part: products that are lost below the smallest f32.
    const whole = margin * (1 + 2 ** -20) + 2 ** -120;
    this.low = centred - whole;
    this.high = centred + whole;
  }

  #distance(score: number, error: number): void {
    const distance = Math.sqrt(score);
    const apart = (error + this.#rounded) * (1 + 2 ** -40) + 2 ** -70;
    const least = Math.max(0, distance * (1 - 2 ** -22) - apart);
    const most = distance * (1 + 2 ** -22) + apart;
    this.high = -Math.max(0, least * least * (1 - 2 ** -22) - 2 ** -140);
    this.low = -(most * most * (1 + 2 ** -22) + 2 ** -140);
  }
}
