/**
 * The vocabulary an op is declared in. An op is one value: named axes, ports (tensors, scalars, options),
 * constraints as sentences, cost and rounding. Types, checks, parameter structs, tests, benches, docs and
 * the support matrix are all read from it.
 */
import { invoke } from "../default.js";
import type { DType } from "../dtype.js";
import type { CallArguments, Results } from "./types.js";

export interface Axis {
  readonly doc: string;
  /** Smallest and largest size. Defaults 0 and 2^31 - 1. */
  readonly min: number;
  readonly max: number;
  /** The plan fixes a capacity; `step.set(axis, n)` gives the actual size of a run. Only for leading axes. */
  readonly live: boolean;
  /** Its size where no tensor shows one and the caller names none: for axes that only optional tensors have. */
  readonly default?: number | undefined;
}

export const axis = <const D extends number | undefined = undefined>(
  doc: string,
  { min = 0, max = 2 ** 31 - 1, live = false, default: size }: Partial<Omit<Axis, "doc" | "default">> & { readonly default?: D } = {},
): Axis & { readonly default?: D } => ({ doc, min, max, live, ...(size === undefined ? {} : { default: size }) });

/** A size: an axis, a number, or `ceil(axis * times / per) + plus`, where times and per may be axes too. */
export type Dim<A extends string = string> = A | number | DerivedDim<A>;
export interface DerivedDim<A extends string = string> {
  readonly axis: A;
  readonly times: A | number;
  readonly per: A | number;
  readonly plus: number;
}
export const dim = <const A extends string>(
  name: A,
  { times = 1, per = 1, plus = 0 }: { times?: A | number; per?: A | number; plus?: number } = {},
): DerivedDim<A> => ({ axis: name, times, per, plus });

export type Role = "in" | "out" | "inout";
/**
 * `always`; `optional`: the caller decides; `scale`: present exactly when another port has one of some dtypes;
 * `like`: present and typed exactly as another port.
 */
export type Presence = "always" | "optional" | "scale" | "like";

export interface TensorPort<D extends DType = DType, R extends Role = Role, P extends Presence = Presence, A extends string = string> {
  readonly kind: "tensor";
  readonly role: R;
  readonly presence: P;
  readonly dtypes: readonly D[];
  readonly shape: readonly Dim<A>[];
  readonly doc: string;
  /** With presence `scale`: the port whose values these scale, and the dtypes of it that need them. */
  readonly scaleOf?: { readonly port: string; readonly dtypes: readonly DType[] };
  /** With presence `like`: the port it follows. */
  readonly like?: string;
  /** Values are indices below this size; a kernel checks each one where it loads it. */
  readonly indexInto?: Dim<A>;
  /** An index value that means "none". */
  readonly none?: number;
  /** Rows may lie further apart than they are long (`rowPitch`, in storage elements). */
  readonly pitched?: boolean;
  /** How many entries of each row are valid is written to this output at run time; the tail holds `none`. */
  readonly counted?: string;
}

export interface ScalarPort<T extends "f32" | "i32" | "u32" = "f32" | "i32" | "u32"> {
  readonly kind: "scalar";
  readonly dtype: T;
  readonly doc: string;
  readonly min: number;
  readonly max: number;
  readonly default?: number | ((axes: Readonly<Record<string, number>>) => number);
}

export interface OptionPort<V extends string | boolean | number = string | boolean | number, D extends boolean = boolean> {
  readonly kind: "option";
  readonly values: readonly V[];
  readonly doc: string;
  readonly default?: V;
  readonly required: D;
}

export type Port<A extends string = string> = TensorPort<DType, Role, Presence, A> | ScalarPort | OptionPort;

type TensorExtra<A extends string> = { indexInto?: Dim<A>; none?: number; pitched?: boolean; counted?: string };
type Listed<D> = D | readonly D[];
const listed = <D extends string>(value: Listed<D>): readonly D[] => (typeof value === "string" ? [value] : (value as readonly D[]));

const tensor =
  <R extends Role>(role: R) =>
  <const D extends DType, const A extends string>(
    dtype: Listed<D>,
    shape: readonly Dim<A>[],
    doc: string,
    extra: TensorExtra<string> = {},
  ): TensorPort<D, R, "always", A> =>
    ({ kind: "tensor", role, presence: "always", dtypes: listed(dtype), shape, doc, ...extra }) as TensorPort<D, R, "always", A>;

/** A tensor the op reads. */
export const input = tensor("in");
/** A tensor the op writes completely; the caller owns it. */
export const output = tensor("out");
/** A tensor the op reads and writes in place, such as a KV cache or the state of a structure. */
export const inout = tensor("inout");

/** The same tensor, but the caller may leave it out. */
export const optional = <D extends DType, R extends Role, A extends string>(
  port: TensorPort<D, R, "always", A>,
): TensorPort<D, R, "optional", A> => ({ ...port, presence: "optional" });

/** The scales of `port`'s values: required when that port has one of `dtypes`, absent otherwise. */
export const scaleOf = <D extends DType, R extends Role, A extends string>(
  port: string,
  forDtypes: readonly DType[],
  scales: TensorPort<D, R, "always", A>,
): TensorPort<D, R, "scale", A> => ({
  ...scales,
  presence: "scale",
  scaleOf: { port, dtypes: forDtypes },
});

/** A tensor that is there, and of the same dtype, whenever `port` is: the values beside the keys. */
export const like = <D extends DType, R extends Role, A extends string>(
  port: string,
  follows: TensorPort<D, R, "always", A>,
): TensorPort<D, R, "like", A> => ({ ...follows, presence: "like", like: port });

/** A number that may change from run to run. */
export const scalar = <const T extends "f32" | "i32" | "u32">(
  dtype: T,
  doc: string,
  extra: Partial<Pick<ScalarPort, "min" | "max" | "default">> = {},
): ScalarPort<T> => ({
  kind: "scalar",
  dtype,
  doc,
  min: dtype === "f32" ? -3.4028234663852886e38 : dtype === "i32" ? -(2 ** 31) : 0,
  max: dtype === "f32" ? 3.4028234663852886e38 : dtype === "i32" ? 2 ** 31 - 1 : 2 ** 32 - 1,
  ...extra,
});

/** One of a few values, fixed when the plan is made. The first is the default. */
export const choice = <const V extends string | number>(values: readonly V[], doc: string): OptionPort<V, false> => ({
  kind: "option",
  values,
  doc,
  required: false,
  default: values[0] as V,
});

/** One of a few values that the caller must name: there is no sensible default. */
export const requiredChoice = <const V extends string | number>(values: readonly V[], doc: string): OptionPort<V, true> => ({
  kind: "option",
  values,
  doc,
  required: true,
});

/** A yes or no, fixed when the plan is made. Default false. */
export const flag = (doc: string): OptionPort<boolean, false> => ({
  kind: "option",
  values: [false, true],
  doc,
  required: false,
  default: false,
});

/** The dtypes, options and present optionals of one plan: what a kernel is chosen by, beside the op. */
export type AnyVariant = Readonly<Record<string, string | boolean | number>>;
export type AnyAxes = Readonly<Record<string, number>>;

export interface Constraint<A extends AnyAxes = AnyAxes> {
  /** What must hold, as it stands after "expected": "k at most count". */
  readonly says: string;
  /** The axes and options to show when it does not. */
  readonly about: readonly string[];
  holds(axes: A, variant: AnyVariant): boolean;
}

export interface Cost {
  /** Additions and multiplications, a fused multiply-add counting two. */
  flops: number;
  /** Bytes that must move from and to memory, each counted once. */
  bytes: number;
}

/** Rounding of one output: steps of the accumulator's unit roundoff on the sum of |terms|. 0 means exact. */
export type Rounding = Readonly<Record<string, number>>;

/** What a reference kernel is given. Absent optionals are undefined. */
export interface ReferenceCall {
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  readonly scalars: Readonly<Record<string, number>>;
  // biome-ignore lint/suspicious/noExplicitAny: narrowed by ReferenceOf<Op>; this is the erased form.
  readonly tensors: any;
  /** Row pitch of each pitched tensor, in storage elements. */
  readonly pitch: Readonly<Record<string, number>>;
  /** When given, the sum of |terms| of each floating-point output is written beside it (for tolerances). */
  readonly magnitude?: Readonly<Record<string, Float64Array>> | undefined;
  /** Reports a bad index: the entry is skipped and the call fails. */
  fail(port: string, index: number, value: number): void;
}

export interface OpDefinition<
  Id extends string,
  A extends Readonly<Record<string, Axis>>,
  P extends Readonly<Record<string, Port<keyof A & string>>>,
> {
  /** `family/op`, in kebab case. */
  readonly id: Id;
  /** One sentence: what comes out. */
  readonly doc: string;
  /** Paper and equation, or the system it is modelled on. */
  readonly source: string;
  readonly axes: A;
  /** In the order kernels see them. */
  readonly ports: P;
  readonly constraints: readonly Constraint<{ readonly [K in keyof A]: number }>[];
  /** Exact answers: every host backend returns the same bits, whatever its threads and instruction set. */
  readonly exact: boolean;
  /** Why there is no GPU kernel, with the arithmetic; only where there will be none. */
  readonly cpuByDesign?: string;
  cost(axes: { readonly [K in keyof A]: number }, variant: AnyVariant): Cost;
  rounding(axes: { readonly [K in keyof A]: number }, variant: AnyVariant): Rounding;
  /** Plain loops with f64 sums: the definition in code, and the kernel of the `js` backend. */
  reference(call: ReferenceCall): void;
}

/** Declared as a method, so that a particular op is an `Op` wherever any op will do. */
type OneCallForm<A extends Readonly<Record<string, Axis>>, P extends Readonly<Record<string, Port>>> = {
  call(args: CallArguments<A, P>): Promise<Results<P>>;
}["call"];

/**
 * An op: its declaration, and a function that plans (cached), allocates outputs that are not given, and runs, on the
 * backend `auto` picks or the one named.
 */
export interface Op<
  Id extends string = string,
  A extends Readonly<Record<string, Axis>> = Readonly<Record<string, Axis>>,
  P extends Readonly<Record<string, Port>> = Readonly<Record<string, Port>>,
> extends OneCallForm<A, P> {
  readonly id: Id;
  readonly doc: string;
  readonly source: string;
  readonly axes: A;
  readonly ports: P;
  readonly constraints: readonly Constraint[];
  readonly exact: boolean;
  readonly cpuByDesign?: string;
  cost(axes: AnyAxes, variant: AnyVariant): Cost;
  rounding(axes: AnyAxes, variant: AnyVariant): Rounding;
  reference(call: ReferenceCall): void;
}

/** Declares an op. The value can be planned with `plan(op, ...)` and called at once: `await op({ ... })`. */
export function defineOp<
  const Id extends string,
  const A extends Readonly<Record<string, Axis>>,
  const P extends Readonly<Record<string, Port<keyof A & string>>>,
>(definition: OpDefinition<Id, A, P>): Op<Id, A, P> {
  const op = (args: CallArguments<A, P>): Promise<Results<P>> =>
    invoke(op as unknown as Op, args as Record<string, unknown>) as Promise<Results<P>>;
  return Object.freeze(Object.assign(op, definition)) as unknown as Op<Id, A, P>;
}
