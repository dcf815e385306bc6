/**
 * The parameter struct of an op: one layout rule for C (64-bit), AssemblyScript (wasm32) and WGSL.
 * Order: axes, row pitches, tensor pointers (none in WGSL), then 4-byte fields: dtype and option codes,
 * scalars. Larger fields first, so no padding inside; the size is a multiple of the largest field.
 */
import { type DType, dtypes } from "../dtype.js";
import type { AnyVariant, Op, Port, TensorPort } from "./define.js";
import { snakeOf } from "./symbol.js";
import { portDType, variantValues } from "./variant.js";

export type Target = "c64" | "wasm32" | "wgsl";
export type FieldKind = "axis" | "pitch" | "pointer" | "code" | "scalar";

export interface Field {
  /** The port or axis it belongs to. */
  readonly port: string;
  readonly kind: FieldKind;
  /** Name in the generated struct. */
  readonly name: string;
  readonly type: "int" | "pointer" | "u32" | "i32" | "f32";
  readonly bytes: number;
  readonly offset: number;
}

export interface Layout {
  readonly fields: readonly Field[];
  readonly bytes: number;
  readonly target: Target;
}

const cache: Readonly<Record<Target, WeakMap<Op, Layout>>> = { c64: new WeakMap(), wasm32: new WeakMap(), wgsl: new WeakMap() };

export function layoutOf(op: Op, target: Target): Layout {
  const known = cache[target].get(op);
  if (known) return known;
  const layout = makeLayout(op, target);
  cache[target].set(op, layout);
  return layout;
}

function makeLayout(op: Op, target: Target): Layout {
  const word = target === "c64" ? 8 : 4;
  const fields: Field[] = [];
  let offset = 0;
  const add = (port: string, kind: FieldKind, name: string, type: Field["type"], bytes: number) => {
    fields.push({ port, kind, name: snakeOf(name), type, bytes, offset });
    offset += bytes;
  };
  const ports = Object.entries(op.ports) as [string, Port][];
  for (const axis of Object.keys(op.axes)) add(axis, "axis", axis, "int", word);
  for (const [name, port] of ports) if (port.kind === "tensor" && port.pitched) add(name, "pitch", `${name}Pitch`, "int", word);
  if (target !== "wgsl") for (const [name, port] of ports) if (port.kind === "tensor") add(name, "pointer", name, "pointer", word);
  for (const [name, port] of ports) {
    if (port.kind === "scalar") continue;
    if (port.kind === "option") add(name, "code", name, "u32", 4);
    else if (port.dtypes.length > 1 && port.presence !== "like") add(name, "code", `${name}Dtype`, "u32", 4);
  }
  for (const [name, port] of ports) if (port.kind === "scalar") add(name, "scalar", name, port.dtype, 4);
  const align = target === "wgsl" ? 16 : word;
  return { fields, bytes: Math.ceil(offset / align) * align, target };
}

/** What an option's or dtype's value is called inside a kernel: its position, or the dtype's code. */
export function codeOf(op: Op, name: string, variant: AnyVariant): number {
  const port = op.ports[name] as Port;
  if (port.kind === "tensor") {
    const dtype = portDType(op, name, variant);
    return dtype === undefined ? 0xffffffff : dtypes[dtype as DType].code;
  }
  const value = variant[name] as string | boolean | number;
  if (typeof value === "number") return value;
  return (variantValues(port) as readonly unknown[]).indexOf(value);
}

/** A parameter struct being filled: axes, pitches, codes and scalars by name. Pointers belong to the backend. */
export class Params {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #layout: Layout;
  readonly #op: Op;

  constructor(op: Op, target: Target, bytes: Uint8Array = new Uint8Array(layoutOf(op, target).bytes)) {
    this.#op = op;
    this.#layout = layoutOf(op, target);
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Fills everything that a plan fixes. */
  fill(
    axes: Readonly<Record<string, number>>,
    variant: AnyVariant,
    pitch: Readonly<Record<string, number>>,
    scalars: Readonly<Record<string, number>>,
  ): this {
    for (const field of this.#layout.fields) {
      if (field.kind === "axis") this.#write(field, (axes[field.port] ?? this.#op.axes[field.port]?.default) as number);
      else if (field.kind === "pitch") this.#write(field, pitch[field.port] ?? 0);
      else if (field.kind === "code") this.#write(field, codeOf(this.#op, field.port, variant));
      else if (field.kind === "scalar") this.#write(field, scalars[field.port] as number);
    }
    return this;
  }

  /** Sets one axis or scalar. */
  set(name: string, value: number): void {
    const field = this.#layout.fields.find(({ port, kind }) => port === name && (kind === "axis" || kind === "scalar"));
    if (field) this.#write(field, value);
  }

  setPointer(name: string, address: number): void {
    const field = this.#layout.fields.find(({ port, kind }) => port === name && kind === "pointer");
    if (field) this.#write(field, address);
  }

  #write({ type, offset, bytes }: Field, value: number): void {
    if (type === "f32") this.#view.setFloat32(offset, value, true);
    else if (bytes === 8) this.#view.setBigInt64(offset, BigInt(value), true);
    else if (type === "i32") this.#view.setInt32(offset, value, true);
    else this.#view.setUint32(offset, value, true);
  }
}

/** Byte offsets of the pointer fields, in tensor-port order. */
export const pointerOffsets = (op: Op, target: Target): number[] =>
  layoutOf(op, target)
    .fields.filter(({ kind }) => kind === "pointer")
    .map(({ offset }) => offset);

export const isTensor = (port: Port | undefined): port is TensorPort => port?.kind === "tensor";
