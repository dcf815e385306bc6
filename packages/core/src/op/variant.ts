/**
 * Variants: the dtypes, options and present optional tensors of a plan, with one canonical spelling.
 * `rows=i8 metric=l2 filter=true` is the key kernels, cases and `support.json` share.
 */
import { type DType, isDType } from "../dtype.js";
import { DTypeError, describe, HotsetError } from "../errors.js";
import type { AnyVariant, Op, Port, TensorPort } from "./define.js";

/** Does this port appear in the variant, and with which values? Undefined when it is always the same. */
export function variantValues(port: Port): readonly (string | boolean | number)[] | undefined {
  if (port.kind === "scalar") return undefined;
  if (port.kind === "option") return port.values;
  if (port.presence === "scale" || port.presence === "like") return undefined;
  const choices: (string | boolean)[] = port.dtypes.length > 1 ? [...port.dtypes] : port.presence === "optional" ? [true] : [];
  if (port.presence === "optional") choices.unshift(false);
  return choices.length > 1 ? choices : undefined;
}

/** Every valid variant of an op, in declaration order. */
export function variants(op: Op): AnyVariant[] {
  let all: Record<string, string | boolean | number>[] = [{}];
  for (const [name, port] of Object.entries(op.ports)) {
    const values = variantValues(port);
    if (values) all = all.flatMap((variant) => values.map((value) => ({ ...variant, [name]: value })));
  }
  return all;
}

/** `rows=f32 metric=cos filter=false`, ports in declaration order; `-` for an op with one variant. */
export const variantKey = (op: Op, variant: AnyVariant): string =>
  Object.keys(op.ports)
    .filter((name) => variant[name] !== undefined)
    .map((name) => `${name}=${variant[name]}`)
    .join(" ") || "-";

/** Fills in defaults and refuses names and values the op does not have. */
export function completeVariant(op: Op, given: AnyVariant): AnyVariant {
  const complete: Record<string, string | boolean | number> = {};
  for (const name of Object.keys(given)) {
    const port = op.ports[name];
    if (!port || !variantValues(port)) {
      const names = Object.keys(op.ports).filter((key) => variantValues(op.ports[key] as Port));
      throw new HotsetError("argument", {
        where: op.id,
        expected: `a variant of ${names.join(", ") || "nothing"}`,
        received: `${JSON.stringify(name)}`,
      });
    }
  }
  for (const [name, port] of Object.entries(op.ports)) {
    const values = variantValues(port);
    if (!values) continue;
    let value = given[name];
    if (value === undefined && port.kind === "option") value = port.default;
    if (value === undefined && port.kind === "tensor" && port.presence === "optional") value = false;
    if (value === undefined || !values.includes(value)) {
      const parts = { where: op.id, expected: `${name} to be ${listOf(values)}`, received: describe(value) };
      throw port.kind === "tensor" ? new DTypeError(parts) : new HotsetError("argument", parts);
    }
    complete[name] = value;
  }
  return complete;
}

/** The dtype a tensor port has in this variant, or undefined where the tensor is absent. */
export function portDType(op: Op, name: string, variant: AnyVariant): DType | undefined {
  const port = op.ports[name] as TensorPort;
  if (port.presence === "scale") {
    const scaled = port.scaleOf as NonNullable<TensorPort["scaleOf"]>;
    const dtype = portDType(op, scaled.port, variant);
    return dtype && scaled.dtypes.includes(dtype) ? (port.dtypes[0] as DType) : undefined;
  }
  if (port.presence === "like") return portDType(op, port.like as string, variant);
  const value = variant[name];
  if (port.presence === "optional" && !value) return undefined;
  return isDType(value) ? value : (port.dtypes[0] as DType);
}

/** Names of the tensor ports, in declaration order. */
export const tensorNames = (op: Op): string[] => Object.keys(op.ports).filter((name) => (op.ports[name] as Port).kind === "tensor");

/** Tensor ports that exist in this variant. */
export const presentTensors = (op: Op, variant: AnyVariant): string[] =>
  tensorNames(op).filter((name) => portDType(op, name, variant) !== undefined);

const listOf = (values: readonly unknown[]): string => (values.length === 1 ? String(values[0]) : `one of ${values.join(", ")}`);
