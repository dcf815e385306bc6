import { axis, defineOp, input, output, scalar } from "../../op/define.js";
import { reference } from "./reference.js";

/**
 * Ridge regression: the weights W [features, outputs] that minimise |X W - Y|^2 + penalty |W|^2, by the normal
 * equations (X^T X + penalty I) W = X^T Y and a Cholesky factorisation.
 *
 * A constant 1 as one of the features is a bias, penalised like the rest. Without rows W is 0. Sums over the rows are
 * f32 in runs of 128, joined in f64; the factorisation and the solution are f64. Where a pivot is not a positive finite number
 * (a NaN or an infinity in X, or a penalty lost beside X^T X) every weight is NaN; a NaN or an infinity in Y stays in its output.
 */
export const ridge = defineOp({
  id: "linalg/ridge",
  doc: "Ridge regression by the normal equations: the weights that map rows of features to rows of outputs.",
  source: "Hoerl and Kennard, Technometrics 12 (1970), (2.1); Cholesky: Golub and Van Loan, Matrix Computations, 4.2",
  axes: {
    rows: axis("examples", { live: true }),
    features: axis("features of an example", { min: 1, max: 4096 }),
    outputs: axis("values to predict", { min: 1, max: 4096 }),
  },
  ports: {
    x: input("f32", ["rows", "features"], "the features of each example"),
    y: input("f32", ["rows", "outputs"], "what each example should give"),
    penalty: scalar("f32", "what the squares of the weights count", { min: 2 ** -126, default: 1 }),
    weights: output("f32", ["features", "outputs"], "the fitted weights"),
  },
  constraints: [],
  exact: false,
  cpuByDesign:
    "a fit is done once a model: 45,000 rows, 225 features and 32 outputs are 3 GFLOP, less than 0.1 s on two cores; then 225 pivots depend on each other, a launch or barrier each",
  cost: ({ rows, features, outputs }) => ({
    flops: rows * features * (features + 1 + 2 * outputs) + features ** 3 / 3 + 2 * features ** 2 * outputs,
    bytes: 4 * (rows * (features + outputs) + features * outputs),
  }),
  // A sum of X^T X or X^T Y: f32 over a run of 128 rows; the rest is f64, and one rounding of the result.
  rounding: ({ rows }) => ({ weights: Math.min(rows, 128) + 4 }),
  reference,
});
