/** What an operator runs on and what it gives; comparing that with what a case expects. */
import type { CallArguments, Hotset, Op, Results } from "@hotset/core";
import { f16ToNumber } from "@hotset/core";
import { elementsOf, type OnnxTensor, roundoff, storedAs } from "./tensor.js";

/** Runs ops on one backend. */
export class Runner {
  readonly #hotset: Hotset;
  readonly #backend: string;

  constructor(hotset: Hotset, backend: string) {
    this.#hotset = hotset;
    this.#backend = backend;
  }

  call<O extends Op>(op: O, args: CallArguments<O["axes"], O["ports"]>): Promise<Results<O["ports"]>> {
    return this.#hotset.call(op, { ...args, backend: this.#backend } as CallArguments<O["axes"], O["ports"]>);
  }
}

/** Values for one output of a case; several ways to the same output are several of these. */
export interface Produced {
  /** Which output of the operator. */
  readonly output: number;
  readonly shape: readonly number[];
  readonly values: Float32Array | readonly number[];
  /** How far each may lie from what is expected, before the expected one's own rounding; nothing: not at all. */
  readonly within?: Float64Array;
  /** The ops that gave them. */
  readonly via: string;
}

/** What is wrong with these values, in words; NaN is equal to NaN. */
export function wrongWith({ output, shape, values, within }: Produced, expected: OnnxTensor): string | undefined {
  const name = `output ${output}${expected.name ? ` (${expected.name})` : ""}`;
  if (shape.length !== expected.shape.length || shape.some((size, i) => size !== expected.shape[i]))
    return `${name} has the shape [${shape.join(", ")}], expected [${expected.shape.join(", ")}]`;
  const stored = values instanceof Float32Array ? storedAs(expected.type, values) : values;
  if (stored.length !== elementsOf(shape)) return `${name} has ${stored.length} values, expected ${elementsOf(shape)}`;
  const rounding = 2 * (roundoff[expected.type] ?? 0);
  let worst = { at: -1, excess: 1, wanted: 0, within: 0 };
  for (let i = 0; i < stored.length; i++) {
    const value = stored[i] as number;
    const wanted = expected.type === "float16" ? f16ToNumber(expected.data[i] as number) : Number(expected.data[i]);
    if (value === wanted || (Number.isNaN(value) && Number.isNaN(wanted))) continue;
    const room = within ? (within[i] as number) + rounding * Math.abs(wanted) + (expected.slack ?? 0) : 0;
    // What is not finite lies within nothing.
    const excess = Number.isFinite(value) && Number.isFinite(wanted) ? Math.abs(value - wanted) / room : Number.POSITIVE_INFINITY;
    if (!(excess <= worst.excess)) worst = { at: i, excess, wanted, within: room };
  }
  if (worst.at < 0) return undefined;
  const allowed = within ? ` within ${worst.within.toPrecision(3)} (${worst.excess.toPrecision(3)} times too far)` : "";
  return `${name}[${worst.at}] is ${stored[worst.at]}, expected ${worst.wanted}${allowed}`;
}
