/** The guarded downdate in plain f32, as an honest kernel does it, and as wrong ones do. */
import type { ReferenceCall } from "../../op/define.js";
import { insert, type RingAxes, turnOf } from "../continual-single/ring.js";
import { type RetroactiveTensors, rowExtra, unit } from "./reference.js";

export interface Wrongly {
  /** Takes whatever comes out of a downdate. */
  unguarded?: boolean;
  /** As published: exponentials of the logits themselves. */
  raw?: boolean;
  /** Takes off the value of the token after the one that leaves. */
  nextValue?: boolean;
  /** Takes nothing off. */
  keeping?: boolean;
}

const f = Math.fround;

export function kernel32(call: ReferenceCall, wrongly: Wrongly = {}): void {
  const { streams, heads, window, headDim } = call.axes as RingAxes;
  const tensors = call.tensors as RetroactiveTensors;
  const { steps, out, error, recomputed } = tensors;
  for (let stream = 0; stream < streams; stream++) {
    const turn = turnOf(steps[stream] as number, window);
    out.fill(0, stream * heads * window * headDim, (stream + 1) * heads * window * headDim);
    error.fill(0, stream * heads, (stream + 1) * heads);
    recomputed.fill(0, stream * heads, (stream + 1) * heads);
    if (!turn) {
      call.fail("steps", stream, steps[stream] as number);
      continue;
    }
    for (let head = stream * heads; head < (stream + 1) * heads; head++) {
      const leaving = insert(tensors, call.axes as RingAxes, head, turn);
      tensors.queryRing.set(tensors.query.subarray(head * headDim, (head + 1) * headDim), (head * window + turn.slot) * headDim);
      if (wrongly.nextValue) leaving.value = part(tensors.valueRing, head * window + turn.oldest, headDim).slice();
      for (let place = 0; place < turn.held; place++) {
        const slot = (turn.oldest + place) % window;
        const row = new Row32(call, head, slot, turn.held, wrongly);
        let exact = slot === turn.slot;
        if (!exact && !row.update(turn.full && !wrongly.keeping ? leaving : undefined) && !wrongly.unguarded) {
          exact = true;
          recomputed[head] = (recomputed[head] as number) + 1;
        }
        if (exact) row.compute();
        row.write(out.subarray((head * window + place) * headDim, (head * window + place + 1) * headDim));
        error[head] = Math.max(error[head] as number, row.error);
      }
    }
    steps[stream] = turn.next;
  }
}

const part = (all: Float32Array, row: number, width: number): Float32Array => all.subarray(row * width, (row + 1) * width);

class Row32 {
  readonly #tensors: RetroactiveTensors;
  readonly #scalars: ReferenceCall["scalars"];
  readonly #first: number;
  readonly #held: number;
  readonly #newest: number;
  readonly #query: Float32Array;
  readonly #kept: Float32Array;
  readonly #values: Float32Array;
  readonly #raw: boolean;
  #power: number;
  #sum: number;
  error: number;

  constructor({ axes, scalars, tensors }: ReferenceCall, head: number, slot: number, held: number, { raw = false }: Wrongly) {
    const { window, headDim } = axes as RingAxes;
    this.#tensors = tensors as RetroactiveTensors;
    this.#scalars = scalars;
    this.#first = head * window;
    this.#held = held;
    this.#newest = head;
    this.#query = part(this.#tensors.queryRing, this.#first + slot, headDim);
    this.#kept = part(this.#tensors.rows, this.#first + slot, headDim + rowExtra);
    this.#raw = raw;
    this.#power = this.#kept[headDim] as number;
    this.#sum = this.#kept[headDim + 1] as number;
    this.error = this.#kept[headDim + 2] as number;
    this.#values = this.#kept.slice(0, headDim);
    if (raw) this.#rescale(0);
  }

  /** Whether the guard takes the row as it is now. */
  update(leaving: { key: Float32Array; value: Float32Array } | undefined): boolean {
    const headDim = this.#query.length;
    const value = part(this.#tensors.value, this.#newest, headDim);
    const arrives = this.#weight(part(this.#tensors.key, this.#newest, headDim));
    const leaves = leaving ? this.#weight(leaving.key) : { power: 0, part: 0 };
    this.#rescale(Math.max(this.#power, arrives.power));
    const plus = f(arrives.part * 2 ** (arrives.power - this.#power));
    const less = f(leaves.part * 2 ** (leaves.power - this.#power));
    const before = this.#sum;
    this.#sum = f(f(before - less) + plus);
    this.error = f((this.error * before + 2 * unit * Math.max(before, less) + unit * plus) / this.#sum);
    for (let d = 0; d < headDim; d++) {
      const off = leaving ? f((this.#values[d] as number) - f(less * (leaving.value[d] as number))) : (this.#values[d] as number);
      this.#values[d] = off + f(plus * (value[d] as number));
    }
    return this.#sum > 0 && this.error < (this.#scalars.tolerance as number) && this.#values.every(Number.isFinite);
  }

  compute(): void {
    const headDim = this.#query.length;
    const { keyRing, valueRing } = this.#tensors;
    const weights = Array.from({ length: this.#held }, (_, i) => this.#weight(part(keyRing, this.#first + i, headDim)));
    this.#power = weights.reduce((most, { power }) => Math.max(most, power), Number.NEGATIVE_INFINITY);
    this.#sum = 0;
    this.#values.fill(0);
    for (const [i, { power, part: size }] of weights.entries()) {
      const weight = f(size * 2 ** (power - this.#power));
      this.#sum = f(this.#sum + weight);
      for (const [d, value] of part(valueRing, this.#first + i, headDim).entries())
        this.#values[d] = (this.#values[d] as number) + f(weight * value);
    }
    this.error = 0;
  }

  write(out: Float32Array): void {
    const sound = Number.isFinite(this.#sum) && this.#values.every(Number.isFinite);
    if (!sound) this.error = Number.POSITIVE_INFINITY;
    for (const [d, value] of this.#values.entries()) {
      const mean = f(value / this.#sum);
      out[d] = Number.isFinite(mean) ? mean : Number.NaN;
    }
    this.#kept.set(sound ? this.#values : new Float32Array(out.length));
    this.#kept.set([sound ? this.#power : 0, sound ? this.#sum : 0, this.error], out.length);
  }

  #rescale(power: number): void {
    const factor = 2 ** (this.#power - power);
    this.#sum = f(this.#sum * factor);
    for (const [d, value] of this.#values.entries()) this.#values[d] = value * factor;
    this.#power = power;
  }

  /** exp(logit) = part * 2^power; NaN where the logit is not finite. */
  #weight(key: Float32Array): { power: number; part: number } {
    let sum = 0;
    for (const [i, x] of this.#query.entries()) sum = f(sum + f(x * (key[i] as number)));
    const logit = f(sum * (this.#scalars.scale as number));
    if (!Number.isFinite(logit)) return { power: 0, part: Number.NaN };
    if (this.#raw) return { power: 0, part: f(Math.exp(logit)) };
    const power = Math.round(logit * Math.LOG2E);
    return { power, part: f(Math.exp(logit - power * Math.LN2)) };
  }
}
