/** Whether the arguments of a call have the form of an earlier one, whose plan then serves it: compared, not hashed. */
import type { HostArray } from "./dtype.js";
import type { Op } from "./op/define.js";
import type { TensorValue } from "./op/types.js";
import { Tensor } from "./tensor.js";

/** The kinds and sizes of the arguments, in the order given; not their contents. */
export type Form = readonly Part[];
interface Part {
  readonly name: string;
  /** An option, an axis or a backend: the value itself. A scalar may be any. */
  readonly value?: unknown;
  readonly scalar?: boolean;
  readonly array?: ArrayForm;
  /** Of an array with its dtype and shape, or a tensor in some backend's memory. */
  readonly tagged?: {
    readonly data: ArrayForm;
    readonly dtype: string | undefined;
    readonly shape: readonly number[] | undefined;
    readonly rowPitch: number | undefined;
    readonly backend: string | undefined;
  };
}
interface ArrayForm {
  readonly kind: unknown;
  readonly length: number;
}

export function formOf(op: Op, args: Record<string, unknown>): Form {
  const parts: Part[] = [];
  for (const name in args) {
    const value = args[name];
    if (value === undefined) continue;
    if (op.ports[name]?.kind === "scalar") parts.push({ name, scalar: true });
    else if (typeof value !== "object" || value === null) parts.push({ name, value });
    else if (ArrayBuffer.isView(value)) parts.push({ name, array: sizeOf(value as HostArray) });
    else {
      const { dtype, shape, rowPitch, backend } = value as TensorValue & { backend?: string };
      parts.push({ name, tagged: { data: dataOf(value as TensorValue), dtype, shape: shape && [...shape], rowPitch, backend } });
    }
  }
  return parts;
}

const sizeOf = (view: HostArray): ArrayForm => ({ kind: view.constructor, length: view.length });

export function fits(form: Form, args: Record<string, unknown>): boolean {
  let at = 0;
  for (const name in args) {
    const value = args[name];
    if (value === undefined) continue;
    const part = form[at++];
    if (part === undefined || part.name !== name) return false;
    if (part.scalar) continue;
    if (typeof value !== "object" || value === null) {
      if (part.array || part.tagged || part.value !== value) return false;
    } else if (part.array) {
      if (!ArrayBuffer.isView(value) || !sameArray(part.array, value as HostArray)) return false;
    } else if (!part.tagged || !sameTagged(part.tagged, value as TensorValue)) return false;
  }
  return at === form.length;
}

const sameArray = (form: ArrayForm, value: HostArray): boolean => value.length === form.length && value.constructor === form.kind;

function sameTagged(form: NonNullable<Part["tagged"]>, value: TensorValue & { backend?: string }): boolean {
  if (ArrayBuffer.isView(value) || value.dtype !== form.dtype || value.rowPitch !== form.rowPitch || value.backend !== form.backend)
    return false;
  const data = dataOf(value);
  if (data.kind !== form.data.kind || data.length !== form.data.length) return false;
  const { shape } = value;
  if (shape === undefined || form.shape === undefined) return shape === form.shape;
  return shape.length === form.shape.length && form.shape.every((size, i) => size === shape[i]);
}

/** A tensor on a device has no elements here, and neither has a runtime's own buffer. */
function dataOf(value: TensorValue | Tensor): ArrayForm {
  if (value instanceof Tensor) return { kind: Tensor, length: value.memory ? 1 : 0 };
  const data: unknown = value.data;
  if (ArrayBuffer.isView(data)) return sizeOf(data as HostArray);
  return data instanceof Tensor ? { kind: data.backend, length: data.memory ? 1 : 0 } : { kind: "buffer", length: 0 };
}
