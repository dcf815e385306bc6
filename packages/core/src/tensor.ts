/// <reference lib="esnext.disposable" preserve="true" />
import { type DType, dtypes, type HostArray, isDType, type Storage } from "./dtype.js";
import { DTypeError, describe, HotsetError } from "./errors.js";
import type { GivenTensor } from "./op/axes.js";
import type { TensorValue } from "./op/types.js";

/** Memory a backend reads without copying. Cannot be detached; `release` gives it back. */
export interface Allocation {
  readonly bytes: Uint8Array;
  release(): void;
}

/** A tensor in memory that a backend reads in place, made by `alloc`. Safe to use in asynchronous runs. */
export class Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  /** The backend whose memory it lies in. */
  readonly backend: string;
  #data: Storage[D] | undefined;
  #allocation: Allocation | undefined;

  constructor(dtype: D, shape: readonly number[], backend: string, allocation: Allocation) {
    const { storage } = dtypes[dtype];
    this.dtype = dtype;
    this.shape = shape;
    this.backend = backend;
    this.#allocation = allocation;
    this.#data = new storage(
      allocation.bytes.buffer,
      allocation.bytes.byteOffset,
      allocation.bytes.byteLength / storage.BYTES_PER_ELEMENT,
    ) as Storage[D];
  }

  /** The elements, row-major, on the host. */
  get data(): Storage[D] {
    if (!this.#data)
      throw new HotsetError("disposed", { where: "Tensor.data", expected: "a live tensor", received: "one that was disposed" });
    return this.#data;
  }

  dispose(): void {
    this.#data = undefined;
    this.#allocation?.release();
    this.#allocation = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A tensor argument in one form: where its elements lie and what is known of its type and shape. */
export interface Operand extends GivenTensor {
  readonly data: HostArray;
}

const storageNames = new Map<string, DType[]>();
for (const [name, info] of Object.entries(dtypes) as [DType, (typeof dtypes)[DType]][])
  storageNames.set(info.storage.name, [...(storageNames.get(info.storage.name) ?? []), name]);

/** Reads a tensor argument. `accepted` are the port's dtypes; `where` and `name` are for the message. */
export function operand(where: string, name: string, value: unknown, accepted: readonly DType[]): Operand {
  const tagged = isTagged(value) ? value : undefined;
  const data: unknown = asBits((tagged ? tagged.data : value) as HostArray);
  const candidates = ArrayBuffer.isView(data) ? storageNames.get(storageClass(data)) : undefined;
  if (!candidates)
    throw new DTypeError({ where, expected: `${name} as ${expectedForms(accepted)}`, received: describe(value), ...arrayHint(value) });
  const dtype =
    tagged?.dtype ??
    onlyOne(
      candidates.filter((candidate) => accepted.includes(candidate)),
      isFloat16(tagged ? tagged.data : value),
    );
  if (dtype === undefined) {
    const hint = candidates.some((candidate) => accepted.includes(candidate))
      ? { hint: `Say which with { data, dtype: "${candidates[0]}" }.` }
      : {};
    throw new DTypeError({ where, expected: `${name} as ${expectedForms(accepted)}`, received: describe(data), ...hint });
  }
  if (!isDType(dtype) || !accepted.includes(dtype))
    throw new DTypeError({ where, expected: `${name} with dtype ${accepted.join(", ")}`, received: describe(dtype) });
  if (!candidates.includes(dtype))
    throw new DTypeError({ where, expected: `${name} of dtype ${dtype} in a ${dtypes[dtype].storage.name}`, received: describe(data) });
  const view = data as HostArray;
  return {
    data: view,
    dtype,
    length: view.length,
    shape: tagged?.shape,
    rowPitch: tagged && "rowPitch" in tagged ? tagged.rowPitch : undefined,
  };
}

/** A Float16Array, where the engine has them, as the bits Hotset works with. */
export const asBits = (data: HostArray): HostArray => (isFloat16(data) ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data);

const isTagged = (value: unknown): value is TensorValue | Tensor =>
  typeof value === "object" && value !== null && !ArrayBuffer.isView(value) && !Array.isArray(value) && "data" in value;

const isFloat16 = (value: unknown): value is Uint16Array => ArrayBuffer.isView(value) && storageClass(value) === "Float16Array";

// Node's Buffer is a Uint8Array with another name; the tag of %TypedArray% is the same in every realm.
const storageClass = (value: ArrayBufferView): string =>
  (value as { [Symbol.toStringTag]?: string })[Symbol.toStringTag] ?? value.constructor.name;

function onlyOne(candidates: readonly DType[], float16: boolean): DType | undefined {
  if (float16) return candidates.includes("f16") ? "f16" : undefined;
  return candidates.length === 1 ? candidates[0] : undefined;
}

const expectedForms = (accepted: readonly DType[]): string =>
  accepted.map((dtype) => `${dtype} (${dtypes[dtype].storage.name})`).join(" or ");

const arrayHint = (value: unknown): { hint?: string } =>
  Array.isArray(value) ? { hint: "Convert it once: Float32Array.from(values.flat())." } : {};
