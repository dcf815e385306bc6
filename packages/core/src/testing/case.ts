/** What an op's `cases.ts` exports: shapes and inputs for tests and benches, laws, and wrong kernels to reject. */
import type { HostArray } from "../dtype.js";
import { caseModules } from "../gen/cases.js";
import type { AnyAxes, AnyVariant, Op, ReferenceCall } from "../op/define.js";
import type { Random } from "./random.js";

export type Tensors = Readonly<Record<string, HostArray>>;

export interface InputRequest {
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  readonly random: Random;
}

export interface Case {
  readonly name: string;
  readonly axes: AnyAxes;
  /** Actual sizes of live axes, where they are below the plan's. */
  readonly live?: AnyAxes;
  readonly scalars?: Readonly<Record<string, number>>;
  /** Storage elements between rows beyond a dense row, by pitched port. */
  readonly extraPitch?: Readonly<Record<string, number>>;
  /** Which variants it runs in; default all. */
  readonly variants?: (variant: AnyVariant, index: number) => boolean;
  /** Different inputs; default 2. */
  readonly seeds?: number;
  /** Every in and inout tensor of the variant, in dense rows. */
  inputs(request: InputRequest): Tensors;
}

/** What a mutant may look at to say why it cannot be seen. */
export interface Evidence {
  readonly op: Op;
  /** Actual sizes. */
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  readonly pitch: Readonly<Record<string, number>>;
  readonly scalars: Readonly<Record<string, number>>;
  /** Before the run. */
  readonly inputs: Tensors;
  /** What the reference makes of them. */
  readonly expected: Tensors;
}

/** A wrong kernel. Every case tells it from the reference, or has a reason why it cannot; every variant has a case that does. */
export interface Mutant {
  readonly name: string;
  /** Does the work wrongly, by changing the call, or its results. */
  run(call: ReferenceCall, op: Op): void;
  /** The variants in which it is another kernel at all; default all. */
  readonly variants?: (variant: AnyVariant) => boolean;
  /** Why it cannot be seen here; undefined when it must be. */
  blind(evidence: Evidence): string | undefined;
  /** Only bit equality shows it: not for backends that are judged by tolerance. */
  readonly exactOnly?: boolean;
}

/** Runs an op on the backend under test, with these scalars or their defaults; outputs by port. */
export type Runner = (axes: AnyAxes, variant: AnyVariant, inputs: Tensors, scalars?: Readonly<Record<string, number>>) => Promise<Tensors>;

/** A property that holds whatever the inputs, perhaps beside what another op gives; returns what is wrong, or nothing. */
export interface Law {
  readonly name: string;
  check(run: Runner, request: InputRequest, other: (op: Op) => Runner): Promise<string | undefined>;
  /** It is about equal bits that devices do not owe. */
  readonly hostOnly?: boolean;
  /** Which variants it is checked in; default all. */
  readonly variants?: (variant: AnyVariant) => boolean;
  /** The sizes it is checked at. */
  readonly axes: AnyAxes;
}

export interface BenchCase {
  readonly name: string;
  readonly axes: AnyAxes;
  readonly variants: readonly AnyVariant[];
  /** The constants of the choice between backends are fitted to these; its regret is reported on the others. */
  readonly calibrate?: boolean;
  /** Quick to make even when large. */
  inputs(request: InputRequest): Tensors;
  /** A part that the reference can do in a second, and which of the outputs it gives; default all of it. */
  sample?(axes: AnyAxes, inputs: Tensors): { axes: AnyAxes; inputs: Tensors; pick(outputs: Tensors): Tensors };
}

export interface Judged {
  /** Actual sizes. */
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  readonly inputs: Tensors;
  readonly pitch: Readonly<Record<string, number>>;
  readonly scalars: Readonly<Record<string, number>>;
  readonly got: Tensors;
  /** How far a value of an output may lie from `expected`, given the sum of |terms| behind it. */
  tolerance(port: string, expected: number, magnitude: number): number;
}

export interface OpCases {
  readonly cases: readonly Case[];
  readonly mutants: readonly Mutant[];
  readonly laws: readonly Law[];
  readonly bench: readonly BenchCase[];
  /** Judges a result where bits may differ (device backends); returns what is wrong. Default: the computed tolerance. */
  accept?(request: Judged): string | undefined;
}

/** The cases of an op, found by its id. */
export async function casesOf(op: Op): Promise<OpCases> {
  const load = (caseModules as Readonly<Record<string, () => Promise<{ cases: OpCases }>>>)[op.id];
  if (!load) throw new Error(`${op.id} has no cases.ts, or \`npm run gen\` has not been run since`);
  return (await load()).cases;
}
