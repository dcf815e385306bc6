import type { ReferenceCall } from "../../op/define.js";

export interface RidgeTensors {
  x: Float32Array;
  y: Float32Array;
  weights: Float32Array;
}

export type RidgeAxes = Record<"rows" | "features" | "outputs", number>;

/** (X^T X + penalty I) W = X^T Y, with X^T X + penalty I = U^T U. */
export function reference({ axes, tensors, scalars, magnitude }: ReferenceCall): void {
  const { rows, features, outputs } = axes as RidgeAxes;
  const { x, y, weights } = tensors as RidgeTensors;
  const penalty = scalars.penalty as number;
  const gram = products(x, features, x, features, rows);
  for (let i = 0; i < features; i++) gram[i * features + i] = (gram[i * features + i] as number) + penalty;
  const solution = products(x, features, y, outputs, rows);
  if (!factorise(gram, features)) {
    weights.fill(Number.NaN);
    return;
  }
  solve(gram, features, solution, outputs);
  for (let i = 0; i < features * outputs; i++) weights[i] = solution[i] as number;
  if (magnitude?.weights) sensitivity(gram, solution, axes as RidgeAxes, tensors as RidgeTensors, penalty, magnitude.weights);
}

/** a^T b [aWidth, bWidth], summed over the rows. */
function products(a: Float32Array, aWidth: number, b: Float32Array, bWidth: number, rows: number): Float64Array {
  const out = new Float64Array(aWidth * bWidth);
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < aWidth; i++) {
      const left = a[row * aWidth + i] as number;
      for (let j = 0; j < bWidth; j++) out[i * bWidth + j] = (out[i * bWidth + j] as number) + left * (b[row * bWidth + j] as number);
    }
  return out;
}

/** The upper factor U in place of a positive definite matrix; false where it is none. */
function factorise(gram: Float64Array, n: number): boolean {
  for (let k = 0; k < n; k++) {
    const pivot = gram[k * n + k] as number;
    if (!(pivot > 0 && pivot < Number.POSITIVE_INFINITY)) return false;
    const root = Math.sqrt(pivot);
    for (let j = k; j < n; j++) gram[k * n + j] = (gram[k * n + j] as number) / root;
    for (let i = k + 1; i < n; i++) {
      const factor = gram[k * n + i] as number;
      for (let j = i; j < n; j++) gram[i * n + j] = (gram[i * n + j] as number) - factor * (gram[k * n + j] as number);
    }
  }
  return true;
}

/** U^T U x = b, for each column of b, in place. */
function solve(upper: Float64Array, n: number, b: Float64Array, columns: number): void {
  const at = (i: number, c: number): number => b[i * columns + c] as number;
  for (let c = 0; c < columns; c++) {
    for (let i = 0; i < n; i++) {
      let value = at(i, c);
      for (let k = 0; k < i; k++) value -= (upper[k * n + i] as number) * at(k, c);
      b[i * columns + c] = value / (upper[i * n + i] as number);
    }
    for (let i = n - 1; i >= 0; i--) {
      let value = at(i, c);
      for (let k = i + 1; k < n; k++) value -= (upper[i * n + k] as number) * at(k, c);
      b[i * columns + c] = value / (upper[i * n + i] as number);
    }
  }
}

/** What roundings of X^T X and X^T Y can do to W, to first order: |G^-1| (|X|^T |Y| + (|X|^T |X| + penalty I) |W|). */
function sensitivity(
  upper: Float64Array,
  solution: Float64Array,
  { rows, features, outputs }: RidgeAxes,
  { x, y }: RidgeTensors,
  penalty: number,
  out: Float64Array,
): void {
  const inverse = new Float64Array(features * features);
  for (let i = 0; i < features; i++) inverse[i * features + i] = 1;
  solve(upper, features, inverse, features);
  const sizes = x.map(Math.abs);
  const terms = products(sizes, features, y.map(Math.abs), outputs, rows);
  const gram = products(sizes, features, sizes, features, rows);
  for (let i = 0; i < features; i++) {
    gram[i * features + i] = (gram[i * features + i] as number) + penalty;
    for (let j = 0; j < features; j++)
      for (let c = 0; c < outputs; c++)
        terms[i * outputs + c] =
          (terms[i * outputs + c] as number) + (gram[i * features + j] as number) * Math.abs(solution[j * outputs + c] as number);
  }
  for (let i = 0; i < features; i++)
    for (let c = 0; c < outputs; c++) {
      let sum = 0;
      for (let j = 0; j < features; j++) sum += Math.abs(inverse[i * features + j] as number) * (terms[j * outputs + c] as number);
      out[i * outputs + c] = sum;
    }
}
