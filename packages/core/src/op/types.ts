/** The TypeScript types of an op's inputs, outputs and variant, read from its declaration. */
import type { DeviceBuffer } from "../device.js";
import type { DType, Storage } from "../dtype.js";
import type { Tensor } from "../tensor.js";
import type { Axis, Op, OptionPort, Port, Role, ScalarPort, TensorPort } from "./define.js";

type Simplify<T> = { [K in keyof T]: T[K] } & {};
type IsUnion<T, U = T> = [T] extends [never] ? false : T extends unknown ? ([U] extends [T] ? false : true) : never;
type KeysOf<P, Shape> = { [K in keyof P]: P[K] extends Shape ? K : never }[keyof P];
type DTypeOf<T> = T extends TensorPort<infer D> ? D : never;

/** A typed array with what it cannot say itself. `dtype` is needed for f16 and bf16, which share Uint16Array. */
export interface TensorValue<D extends DType = DType> {
  readonly data: Storage[D] | Tensor<D>;
  readonly dtype?: D;
  /** Sizes of the axes, outermost first. Left out: solved from the length and the other tensors. */
  readonly shape?: readonly number[];
  /** Storage elements from one row to the next, for ports that allow it. Default: rows are dense. */
  readonly rowPitch?: number;
}
/** A runtime's own buffer on a device: a GPUBuffer as it is, or a CUDA pointer. For plans on that backend. */
export interface DeviceValue<D extends DType = DType> {
  readonly data: DeviceBuffer;
  readonly dtype: D;
  /** Bytes from the buffer's start to the first element; default 0. */
  readonly offset?: number;
  /** Sizes of the axes, outermost first. Left out: those of the plan. */
  readonly shape?: readonly number[];
  readonly rowPitch?: number;
}
/** What a tensor port takes: a typed array, one with its dtype and shape, a tensor made by `alloc`, or a runtime's buffer. */
export type TensorLike<D extends DType = DType> = AnyOf<D> | Tensor<D>;
type AnyOf<D extends DType> = D extends DType ? Storage[D] | TensorValue<D> | DeviceValue<D> | Tensor<D> : never;

type Defaulted<A> = {
  [K in keyof A]: A[K] extends { readonly default?: infer D } ? (D extends number ? (number extends D ? never : K) : never) : never;
}[keyof A];

/** The sizes of a plan; those of axes with a default may be left out. */
export type AxesOf<O extends Op> = Simplify<
  { readonly [K in Exclude<keyof O["axes"], Defaulted<O["axes"]>>]: number } & { readonly [K in Defaulted<O["axes"]>]?: number }
>;

type RequiredInput<P> = KeysOf<P, TensorPort<DType, "in" | "inout", "always" | "like">>;
type OptionalInput<P> = KeysOf<P, TensorPort<DType, "in" | "inout", "optional" | "scale">>;
type OutputName<P> = KeysOf<P, TensorPort<DType, "out">>;

type InputArguments<P> = { readonly [K in RequiredInput<P>]: TensorLike<DTypeOf<P[K]>> } & {
  readonly [K in OptionalInput<P>]?: TensorLike<DTypeOf<P[K]>> | undefined;
};
type OutputArguments<P> = { readonly [K in OutputName<P>]?: TensorLike<DTypeOf<P[K]>> | undefined };
type ScalarArguments<P> = { readonly [K in KeysOf<P, ScalarPort>]?: number | undefined };
type RequiredOptions<P> = {
  readonly [K in KeysOf<P, OptionPort<string | boolean | number, true>>]: P[K] extends OptionPort<infer V> ? V : never;
};
type DefaultedOptions<P> = {
  readonly [K in KeysOf<P, OptionPort<string | boolean | number, false>>]?: (P[K] extends OptionPort<infer V> ? V : never) | undefined;
};

/** The argument of a one-call form: inputs, options, scalars, axes that no input shows, and outputs to write into. */
export type CallArguments<A extends Readonly<Record<string, Axis>>, P extends Readonly<Record<string, Port>>> = string extends keyof P
  ? Readonly<Record<string, unknown>>
  : Simplify<
      InputArguments<P> &
        OutputArguments<P> &
        ScalarArguments<P> &
        RequiredOptions<P> &
        DefaultedOptions<P> & { readonly [K in keyof A]?: number | undefined } & {
          /** Run on this backend or fail; without it the fastest is chosen. */
          readonly backend?: string | undefined;
        }
    >;

/** What a one-call form returns: the outputs as typed arrays, and where they were computed. */
export type Results<P> = Simplify<
  { readonly [K in OutputName<P>]: Storage[DTypeOf<P[K]>] } & { readonly backend: string; readonly kernel: string }
>;

/** The inputs of `plan.bind`. */
export type InputsOf<O extends Op> = Simplify<InputArguments<O["ports"]>>;
/** The outputs of `plan.bind`; those left out are allocated. */
export type OutputsOf<O extends Op> = Simplify<OutputArguments<O["ports"]>>;
/** The names `step.set` takes: scalars and live axes. */
export type SettableOf<O extends Op> = KeysOf<O["ports"], ScalarPort> | keyof O["axes"];

type MultiTyped<P> = {
  [K in keyof P]: P[K] extends TensorPort<infer D, Role, "always"> ? (IsUnion<D> extends true ? K : never) : never;
}[keyof P];
type OptionalTensor<P> = KeysOf<P, TensorPort<DType, "in" | "out" | "inout", "optional">>;

/** The variant of a plan: the dtype of each port with a choice, the options, and which optional tensors will be given. */
export type VariantOf<O extends Op> = Simplify<
  { readonly [K in MultiTyped<O["ports"]>]: DTypeOf<O["ports"][K]> } & RequiredOptions<O["ports"]> &
    DefaultedOptions<O["ports"]> & {
      readonly [K in OptionalTensor<O["ports"]>]?:
        | (IsUnion<DTypeOf<O["ports"][K]>> extends true ? DTypeOf<O["ports"][K]> | false : boolean)
        | undefined;
    }
>;
