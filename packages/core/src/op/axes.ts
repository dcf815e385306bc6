/** Sizes: evaluating dims, solving axes from the tensors given, and checking constraints. */
import { type DType, dtypes, rowLength, storageLength } from "../dtype.js";
import { describe, HotsetError, ShapeError } from "../errors.js";
import type { AnyAxes, AnyVariant, Axis, Dim, Op, TensorPort } from "./define.js";

export const dimSize = (dim: Dim, axes: AnyAxes): number => {
  if (typeof dim === "number") return dim;
  if (typeof dim === "string") return axes[dim] as number;
  return Math.ceil(((axes[dim.axis] as number) * factor(dim.times, axes)) / factor(dim.per, axes)) + dim.plus;
};

const factor = (value: string | number, axes: AnyAxes): number => (typeof value === "number" ? value : (axes[value] as number));

export const dimText = (dim: Dim): string => {
  if (typeof dim !== "object") return String(dim);
  const scaled = dim.times === 1 ? dim.axis : `${dim.axis} * ${dim.times}`;
  const divided = dim.per === 1 ? scaled : `ceil(${scaled} / ${dim.per})`;
  return dim.plus === 0 ? divided : `${divided} + ${dim.plus}`;
};

export const shapeText = (port: TensorPort): string => `[${port.shape.map(dimText).join(", ")}]`;
export const portShape = (port: TensorPort, axes: AnyAxes): number[] => port.shape.map((dim) => dimSize(dim, axes));

/** A tensor as given: its storage length, and its shape where the caller stated one. */
export interface GivenTensor {
  readonly dtype: DType;
  readonly length: number;
  readonly shape?: readonly number[] | undefined;
  readonly rowPitch?: number | undefined;
  /** A runtime's own buffer: it may be longer than the tensor in it. */
  readonly atLeast?: boolean | undefined;
}

/**
 * Finds the size of every axis from explicit sizes, tensors with a shape, and the lengths of flat arrays
 * (where all but one axis is known). Throws ShapeError where two sources disagree or an axis stays unknown.
 */
export function solveAxes(op: Op, explicit: AnyAxes, tensors: Readonly<Record<string, GivenTensor>>): AnyAxes {
  const axes: Record<string, number> = {};
  const source: Record<string, string> = {};
  const learn = (name: string, size: number, from: string) => {
    if (axes[name] === undefined) {
      axes[name] = size;
      source[name] = from;
    } else if (axes[name] !== size) {
      throw new ShapeError({
        where: op.id,
        expected: `one size of ${name}`,
        received: `${axes[name]} in ${source[name]} and ${size} in ${from}`,
      });
    }
  };
  for (const [name, size] of Object.entries(explicit)) {
    if (size === undefined) continue;
    if (!op.axes[name])
      throw new ShapeError({ where: op.id, expected: `an axis of ${Object.keys(op.axes).join(", ")}`, received: JSON.stringify(name) });
    learn(name, size, "the arguments");
  }
  for (const [name, tensor] of Object.entries(tensors)) {
    if (!tensor.shape) continue;
    const port = op.ports[name] as TensorPort;
    if (tensor.shape.length !== port.shape.length)
      throw new ShapeError({
        where: op.id,
        expected: `${name} ${shapeText(port)}`,
        received: `a shape of ${tensor.shape.length} axes, [${tensor.shape.join(", ")}]`,
      });
    port.shape.forEach((dim, i) => {
      if (typeof dim === "string") learn(dim, tensor.shape?.[i] as number, name);
    });
  }
  for (let learned = true; learned; ) {
    learned = false;
    for (const [name, tensor] of Object.entries(tensors)) {
      if (tensor.shape || tensor.rowPitch || tensor.atLeast) continue;
      const found = solveFlat(op.ports[name] as TensorPort, tensor, axes);
      if (!found) continue;
      if (!Number.isInteger(found.size))
        throw new ShapeError({
          where: op.id,
          expected: `${name} ${shapeText(op.ports[name] as TensorPort)} to hold whole rows`,
          received: `${tensor.length} values, not a multiple of ${tensor.length / found.size}`,
        });
      learn(found.axis, found.size, name);
      learned = true;
    }
  }
  for (const [name, { default: size }] of Object.entries(op.axes)) {
    if (axes[name] === undefined && size !== undefined) axes[name] = size;
    if (axes[name] === undefined)
      throw new ShapeError({
        where: op.id,
        expected: `the size of ${name} (${op.axes[name]?.doc})`,
        received: "nothing that shows it",
        hint: `Pass ${name}, or a tensor with its shape: { data, shape: [...] }.`,
      });
  }
  return axes;
}

function solveFlat(port: TensorPort, tensor: GivenTensor, axes: AnyAxes): { axis: string; size: number } | undefined {
  let unknown: string | undefined;
  let known = 1;
  const last = port.shape.length - 1;
  for (let i = 0; i <= last; i++) {
    const dim = port.shape[i] as Dim;
    if (typeof dim === "string" && axes[dim] === undefined) {
      // A packed last axis (bits, blocks) cannot be told from its storage length.
      if (unknown !== undefined || (i === last && dtypes[tensor.dtype].blockElements > 1)) return undefined;
      unknown = dim;
      continue;
    }
    if (typeof dim === "object" && [dim.axis, dim.times, dim.per].some((part) => typeof part === "string" && axes[part] === undefined))
      return undefined;
    const size = dimSize(dim, axes);
    known *= i === last ? rowLength(tensor.dtype, size) : size;
  }
  if (unknown === undefined || known === 0) return undefined;
  return { axis: unknown, size: tensor.length / known };
}

/** The sizes given, and the defaults of axes that have one. */
export const completeAxes = (op: Op, given: AnyAxes): AnyAxes => ({
  ...Object.fromEntries(Object.entries(op.axes).flatMap(([name, { default: size }]) => (size === undefined ? [] : [[name, size]]))),
  ...given,
});

/** Checks every axis against its bounds and every constraint of the op. */
export function checkAxes(op: Op, axes: AnyAxes, variant: AnyVariant): void {
  for (const name of Object.keys(axes)) {
    if (!op.axes[name])
      throw new ShapeError({ where: op.id, expected: `an axis of ${Object.keys(op.axes).join(", ")}`, received: JSON.stringify(name) });
  }
  for (const [name, { min, max }] of Object.entries(op.axes) as [string, Axis][]) {
    const size = axes[name];
    if (!Number.isInteger(size) || (size as number) < min || (size as number) > max)
      throw new ShapeError({ where: op.id, expected: `${name} to be a whole number from ${min} to ${max}`, received: describe(size) });
  }
  for (const { says, about, holds } of op.constraints) {
    if (!holds(axes, variant))
      throw new ShapeError({
        where: op.id,
        expected: says,
        received: about.map((name) => `${name} = ${axes[name] ?? variant[name]}`).join(", "),
      });
  }
}

/** Checks that a tensor holds exactly the port's shape (or, with a row pitch, at least its rows). */
export function checkTensor(op: Op, name: string, tensor: GivenTensor, axes: AnyAxes): void {
  const port = op.ports[name] as TensorPort;
  const shape = portShape(port, axes);
  const dense = storageLength(tensor.dtype, shape);
  const shapeFits = tensor.shape === undefined || tensor.shape.every((size, i) => size === shape[i]);
  const lengthFits = tensor.atLeast ? tensor.length >= dense : tensor.length === dense;
  if (shapeFits && tensor.rowPitch === undefined && lengthFits) return;
  const sizes = `${name} ${shapeText(port)} = [${shape.join(", ")}]`;
  if (!shapeFits) throw new ShapeError({ where: op.id, expected: sizes, received: `[${tensor.shape?.join(", ")}]` });
  if (tensor.rowPitch === undefined)
    throw new ShapeError({
      where: op.id,
      expected: `${sizes}, ${dense} ${dtypes[tensor.dtype].storage.name} elements`,
      received: `${tensor.length}`,
    });
  checkPitch(op, name, tensor, shape, sizes);
}

function checkPitch(op: Op, name: string, tensor: GivenTensor, shape: readonly number[], sizes: string): void {
  const pitch = tensor.rowPitch as number;
  if (!(op.ports[name] as TensorPort).pitched)
    throw new ShapeError({ where: op.id, expected: `${name} in dense rows`, received: `rowPitch ${pitch}` });
  const row = rowLength(tensor.dtype, shape[shape.length - 1] as number);
  if (!Number.isInteger(pitch) || pitch < row)
    throw new ShapeError({
      where: op.id,
      expected: `rowPitch of ${name} to be a whole number of at least ${row}`,
      received: describe(pitch),
    });
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const needed = rows === 0 ? 0 : (rows - 1) * pitch + row;
  if (tensor.length < needed)
    throw new ShapeError({
      where: op.id,
      expected: `${sizes} with rowPitch ${pitch}, at least ${needed} elements`,
      received: `${tensor.length}`,
    });
}

/** Checks the actual size of a live axis, or the value of a scalar, before a run. */
export function checkSetting(op: Op, name: string, value: number, capacity: AnyAxes): void {
  const port = op.ports[name];
  if (port?.kind === "scalar") {
    if (!(value >= port.min && value <= port.max) || (port.dtype !== "f32" && !Number.isInteger(value)))
      throw new HotsetError("argument", {
        where: op.id,
        expected: `${name} to be a ${port.dtype === "f32" ? "finite number" : "whole number"} from ${port.min} to ${port.max}`,
        received: describe(value),
      });
    return;
  }
  if (!op.axes[name]?.live) {
    const names = [
      ...Object.keys(op.axes).filter((axis) => op.axes[axis]?.live),
      ...Object.keys(op.ports).filter((key) => op.ports[key]?.kind === "scalar"),
    ];
    throw new HotsetError("argument", {
      where: op.id,
      expected: `a scalar or live axis: ${names.join(", ") || "this op has none"}`,
      received: JSON.stringify(name),
    });
  }
  if (!Number.isInteger(value) || value < 0 || value > (capacity[name] as number))
    throw new ShapeError({
      where: op.id,
      expected: `${name} to be a whole number from 0 to the plan's ${capacity[name]}`,
      received: describe(value),
    });
}
