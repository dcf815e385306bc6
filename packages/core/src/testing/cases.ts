/** Cases without a test framework: for benches, calibration, and suites in a page. */
import type { AnyVariant, Op } from "../op/define.js";
import type { BenchCase, Tensors } from "./case.js";
import { evaluate, type Prepared, scalarsOf } from "./prepared.js";

export { type BenchCase, type Case, casesOf, type InputRequest, type OpCases, type Tensors } from "./case.js";
export { difference, toleranceOf } from "./compare.js";
export { type Prepared, prepare } from "./prepared.js";
export { Random } from "./random.js";
export { isExact, runCase } from "./run-case.js";
export { type Suite, suiteOf } from "./suite.js";
export { observedRows, type SupportRow, supportProblems, targetOf } from "./support-rows.js";

/** What the reference makes of the sample of a bench case, and how to pick the same part of a full result. */
export function prepareSample(
  op: Op,
  test: BenchCase,
  variant: AnyVariant,
  inputs: Tensors,
): Pick<Prepared, "expected" | "magnitude"> & { pick(outputs: Tensors): Tensors } {
  const sample = test.sample?.(test.axes, inputs) ?? { axes: test.axes, inputs, pick: (outputs: Tensors) => outputs };
  const pitch = Object.fromEntries(
    Object.entries(op.ports).flatMap(([name, port]) =>
      port.kind === "tensor" && port.pitched ? [[name, sample.axes[port.shape.at(-1) as string] as number]] : [],
    ),
  );
  const prepared = {
    op,
    variant,
    axes: sample.axes,
    actual: sample.axes,
    inputs: sample.inputs,
    pitch,
    scalars: scalarsOf(op, { axes: test.axes }),
  } as unknown as Prepared;
  const { expected, magnitude } = evaluate(prepared, (call) => op.reference(call));
  return { expected, magnitude, pick: sample.pick };
}
