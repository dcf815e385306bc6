/** What a plan checks of the tensors it is given: names, presence, dtypes, sizes, where they lie, and overlap. */
import type { Backend, DeviceBackend } from "./backend.js";
import type { DeviceMemory } from "./device.js";
import type { DevicePlace } from "./device-step.js";
import { type DType, type HostArray, rowLength, storageLength } from "./dtype.js";
import { HotsetError, UnsupportedError } from "./errors.js";
import { checkTensor, portShape } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, TensorPort } from "./op/define.js";
import { portDType, presentTensors } from "./op/variant.js";
import { type Operand, operand } from "./tensor.js";

/** A tensor port as a plan has it. */
export interface PlannedPort {
  readonly name: string;
  readonly port: TensorPort;
  readonly dtype: DType;
  /** Storage elements of the dense tensor, and of one row of it. */
  readonly length: number;
  readonly row: number;
}

export function plannedPort(op: Op, name: string, axes: AnyAxes, variant: AnyVariant): PlannedPort {
  const port = op.ports[name] as TensorPort;
  const dtype = portDType(op, name, variant) as DType;
  const shape = portShape(port, axes);
  return { name, port, dtype, length: storageLength(dtype, shape), row: rowLength(dtype, shape.at(-1) ?? 1) };
}

/** Operands by port, and the row pitches that were given. */
export interface Operands {
  readonly operands: Readonly<Record<string, Operand>>;
  readonly pitch: Readonly<Record<string, number>>;
}

/** Reads tensor arguments and checks names, presence, dtypes and sizes. */
export function readOperands(
  op: Op,
  axes: AnyAxes,
  variant: AnyVariant,
  ports: readonly PlannedPort[],
  given: Readonly<Record<string, unknown>>,
): Operands {
  const operands: Record<string, Operand> = {};
  const pitch: Record<string, number> = {};
  for (const name in given) if (given[name] !== undefined && !ports.some((port) => port.name === name)) throw absent(op, name, variant);
  for (const { name, port, dtype } of ports) {
    if (given[name] === undefined) {
      if (port.role === "out") continue;
      throw new HotsetError("argument", { where: op.id, expected: `${name} (${port.doc})`, received: "nothing" });
    }
    const found = operand(op.id, name, given[name], [dtype]);
    checkTensor(op, name, found, axes);
    operands[name] = found;
    if (found.rowPitch !== undefined) pitch[name] = found.rowPitch;
  }
  return { operands, pitch };
}

/** The arrays of operands for a plan on the CPU. */
export function hostArrays(op: Op, backend: Backend, operands: Readonly<Record<string, Operand>>): Record<string, HostArray> {
  const tensors: Record<string, HostArray> = {};
  for (const name in operands) {
    const { data, backend: holder } = operands[name] as Operand;
    if (!data)
      throw new HotsetError("argument", {
        where: op.id,
        expected: `${name} on the host, as the plan runs on ${backend.id}`,
        received: holder ? `a tensor on ${holder}` : "a buffer on a device",
        hint: holder ? `Plan with { backend: "${holder}" }, or use its download().` : "Plan on that device's backend.",
      });
    tensors[name] = data;
  }
  return tensors;
}

/** Where the operands lie for a plan on a device: in its memory, or on the host. */
export function devicePlaces(op: Op, backend: DeviceBackend, operands: Readonly<Record<string, Operand>>): Record<string, DevicePlace> {
  const places: Record<string, DevicePlace> = {};
  for (const name in operands) places[name] = placeOf(op, backend, name, operands[name] as Operand);
  for (const [written, target] of Object.entries(places)) {
    if ((op.ports[written] as TensorPort).role === "in") continue;
    for (const [name, other] of Object.entries(places))
      if (name !== written && "memory" in target && "memory" in other && target.memory.sharesWith(other.memory))
        throw overlap(op, written, name, "parts of one buffer of the device");
  }
  return places;
}

function placeOf(
  op: Op,
  backend: DeviceBackend,
  name: string,
  { data, memory, buffer, offset = 0, backend: holder }: Operand,
): DevicePlace {
  if (data) return { host: data };
  const own: DeviceMemory | string = memory
    ? backend.owns(memory)
      ? memory
      : `a tensor on ${holder === backend.id ? "another device" : holder}`
    : backend.adopt(buffer as NonNullable<typeof buffer>, offset);
  if (typeof own !== "string") return { memory: own };
  throw new HotsetError("argument", {
    where: op.id,
    expected: `${name} on the host, or in memory of ${backend.name}`,
    received: own,
    hint: "Make tensors with plan.alloc; a runtime's own buffers need the backend to be made with its device.",
  });
}

/** Kernels may write an output before they have read every input: what is written must lie apart from the rest. */
export function checkOverlap(op: Op, tensors: Readonly<Record<string, HostArray>>): void {
  const entries = Object.entries(tensors);
  for (const [written, target] of entries) {
    if ((op.ports[written] as TensorPort).role === "in") continue;
    for (const [name, other] of entries) {
      const apart =
        name === written ||
        target.buffer !== other.buffer ||
        target.byteOffset >= other.byteOffset + other.byteLength ||
        other.byteOffset >= target.byteOffset + target.byteLength;
      if (!apart) throw overlap(op, written, name, "views of one buffer that overlap");
    }
  }
}

const overlap = (op: Op, written: string, name: string, received: string): HotsetError =>
  new HotsetError("argument", { where: op.id, expected: `${written}, which is written, to share no memory with ${name}`, received });

function absent(op: Op, name: string, variant: AnyVariant): HotsetError {
  const port = op.ports[name];
  if (port?.kind !== "tensor")
    return new HotsetError("argument", {
      where: op.id,
      expected: `tensors named ${presentTensors(op, variant).join(", ")}`,
      received: JSON.stringify(name),
    });
  if (port.presence === "scale") {
    const { port: scaled, dtypes: needing } = port.scaleOf as NonNullable<TensorPort["scaleOf"]>;
    return new UnsupportedError({
      where: op.id,
      expected: `${name} only with ${scaled} of dtype ${needing.join(", ")}`,
      received: `${name} with ${scaled} of dtype ${variant[scaled]}`,
    });
  }
  return new HotsetError("argument", {
    where: op.id,
    expected: `no ${name}: the plan was made without it`,
    received: name,
    hint: `Plan with { ${name}: true }.`,
  });
}
