/// <reference lib="esnext.disposable" preserve="true" />
import type { DeviceBuffer, DeviceMemory } from "./device.js";
import { byteLength, type DType, dtypes, type HostArray, isDType, type Storage, storageLength } from "./dtype.js";
import { DTypeError, describe, HotsetError, ShapeError } from "./errors.js";
import type { GivenTensor } from "./op/axes.js";
import type { DeviceValue, TensorValue } from "./op/types.js";

/** Memory a backend reads without copying. Cannot be detached; `release` gives it back. */
export interface Allocation {
  readonly bytes: Uint8Array;
  release(): void;
}

/** A tensor in a backend's memory, made by `alloc`: read there without a copy, and safe in asynchronous runs. */
export class Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  /** The backend whose memory it lies in. */
  readonly backend: string;
  #data: Storage[D] | undefined;
  #place: Allocation | DeviceMemory | undefined;

  constructor(dtype: D, shape: readonly number[], backend: string, place: Allocation | DeviceMemory) {
    this.dtype = dtype;
    this.shape = shape;
    this.backend = backend;
    this.#place = place;
    if (onDevice(place)) return;
    const { storage } = dtypes[dtype];
    const { buffer, byteOffset, byteLength } = place.bytes;
    this.#data = new storage(buffer, byteOffset, byteLength / storage.BYTES_PER_ELEMENT) as Storage[D];
  }

  /** The elements, row-major, where the host can see them; a tensor on a device has `upload` and `download`. */
  get data(): Storage[D] {
    if (this.#data) return this.#data;
    const place = this.#live("data");
    throw new HotsetError("argument", {
      where: "Tensor.data",
      expected: "a tensor in host memory",
      received: `one on ${this.backend}${onDevice(place) ? ` of ${place.bytes} bytes` : ""}`,
      hint: "Use upload(array) and await download().",
    });
  }

  /** Copies all elements in; on a device it is queued before the runs that follow, and `source` may change at once. */
  upload(source: Storage[D]): this {
    const place = this.#live("upload");
    const length = storageLength(this.dtype, this.shape);
    const bits = asBits(source as HostArray);
    if (!ArrayBuffer.isView(bits) || !storageNames.get(storageClass(bits))?.includes(this.dtype) || bits.length !== length)
      throw new DTypeError({
        where: "Tensor.upload",
        expected: `${dtypes[this.dtype].storage.name}(${length}) for ${this.dtype} [${this.shape.join(", ")}]`,
        received: describe(source),
      });
    if (onDevice(place)) place.write(bytesOf(bits));
    else (this.#data as Uint8Array).set(bits as Uint8Array);
    return this;
  }

  /** The elements as a new array, or in `target`; on a device after everything that is queued. */
  async download(target?: Storage[D]): Promise<Storage[D]> {
    const place = this.#live("download");
    const length = storageLength(this.dtype, this.shape);
    const out = (target ?? new dtypes[this.dtype].storage(length)) as HostArray;
    if (out.length !== length)
      throw new DTypeError({ where: "Tensor.download", expected: `an array of ${length} elements`, received: describe(target) });
    if (onDevice(place)) await place.read(bytesOf(out));
    else (out as Uint8Array).set(this.#data as Uint8Array);
    return out as Storage[D];
  }

  /** Its first elements as a tensor of another shape, over the same memory: it lives as long as this one. */
  view(shape: readonly number[]): Tensor<D> {
    const place = this.#live("view");
    const bytes = byteLength(this.dtype, shape);
    if (bytes > byteLength(this.dtype, this.shape))
      throw new ShapeError({
        where: "Tensor.view",
        expected: `at most the elements of [${this.shape.join(", ")}]`,
        received: `[${shape.join(", ")}]`,
      });
    const part = onDevice(place) ? place.part(0, bytes) : { bytes: place.bytes.subarray(0, bytes), release() {} };
    return new Tensor(this.dtype, shape, this.backend, part);
  }

  /** For plans: where it lies on a device; undefined on the host. */
  get memory(): DeviceMemory | undefined {
    const place = this.#live("memory");
    return onDevice(place) ? place : undefined;
  }

  dispose(): void {
    this.#data = undefined;
    this.#place?.release();
    this.#place = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(member: string): Allocation | DeviceMemory {
    if (this.#place) return this.#place;
    throw new HotsetError("disposed", { where: `Tensor.${member}`, expected: "a live tensor", received: "one that was disposed" });
  }
}

const onDevice = (place: Allocation | DeviceMemory): place is DeviceMemory => typeof place.bytes === "number";

export const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** A tensor argument in one form: where its elements lie and what is known of its type and shape. */
export interface Operand extends GivenTensor {
  /** On the host, or (exactly one of the three) in a backend's device memory, or in a runtime's own buffer. */
  readonly data?: HostArray;
  readonly memory?: DeviceMemory;
  readonly buffer?: DeviceBuffer;
  /** Bytes into the buffer. */
  readonly offset?: number;
  /** The backend whose device memory it is. */
  readonly backend?: string;
}

const storageNames = new Map<string, DType[]>();
for (const [name, info] of Object.entries(dtypes) as [DType, (typeof dtypes)[DType]][])
  storageNames.set(info.storage.name, [...(storageNames.get(info.storage.name) ?? []), name]);

/** Reads a tensor argument. `accepted` are the port's dtypes; `where` and `name` are for the message. */
export function operand(where: string, name: string, value: unknown, accepted: readonly DType[]): Operand {
  const device = deviceOperand(where, name, value, accepted);
  if (device) return device;
  const tagged = isTagged(value) ? value : undefined;
  const data: unknown = asBits(arrayOf(value));
  const candidates = ArrayBuffer.isView(data) ? storageNames.get(storageClass(data)) : undefined;
  if (!candidates)
    throw new DTypeError({ where, expected: `${name} as ${expectedForms(accepted)}`, received: describe(value), ...arrayHint(value) });
  const dtype =
    tagged?.dtype ??
    onlyOne(
      candidates.filter((candidate) => accepted.includes(candidate)),
      isFloat16(arrayOf(value)),
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

/** A tensor on a device, or a runtime's own buffer; undefined for anything on the host. */
function deviceOperand(where: string, name: string, value: unknown, accepted: readonly DType[]): Operand | undefined {
  if (!isTagged(value)) return undefined;
  const check = (dtype: unknown): DType => {
    if (isDType(dtype) && accepted.includes(dtype)) return dtype;
    throw new DTypeError({ where, expected: `${name} with dtype ${accepted.join(", ")}`, received: describe(dtype) });
  };
  if (value instanceof Tensor) {
    const memory = value.memory;
    const { dtype, shape, backend } = value;
    return memory && { memory, backend, dtype: check(dtype), shape, length: storageLength(dtype, shape) };
  }
  const { data, dtype, shape, rowPitch, offset } = value as unknown as DeviceValue;
  if ((data as unknown) instanceof Tensor) {
    const { memory, backend, dtype: own, shape: whole } = data as unknown as Tensor;
    return memory && { memory, backend, dtype: check(own), shape, rowPitch, length: storageLength(own, whole) };
  }
  if (!isDeviceBuffer(data)) return undefined;
  const { BYTES_PER_ELEMENT } = dtypes[check(dtype)].storage;
  const start = offset ?? 0;
  if (!Number.isInteger(start) || start < 0)
    throw new HotsetError("argument", { where, expected: `offset of ${name} to be a whole number of bytes`, received: describe(offset) });
  const bytes = ("pointer" in data ? data.bytes : data.size) - start;
  return { buffer: data, offset: start, dtype, shape, rowPitch, length: Math.floor(bytes / BYTES_PER_ELEMENT), atLeast: true };
}

/** What holds the elements of an argument on the host: an array, or a tensor's, bare or with its dtype and shape. */
export function arrayOf(value: unknown): HostArray {
  const data = isTagged(value) && !(value instanceof Tensor) ? value.data : value;
  return (data instanceof Tensor ? data.data : data) as HostArray;
}

/** A GPUBuffer by its shape, so that core needs no WebGPU types; or a CUDA pointer. */
export const isDeviceBuffer = (value: unknown): value is DeviceBuffer =>
  typeof value === "object" &&
  value !== null &&
  !ArrayBuffer.isView(value) &&
  (("mapState" in value && "usage" in value) || typeof (value as { pointer?: unknown }).pointer === "bigint");

/** A Float16Array, where the engine has them, as the bits Hotset works with. */
export const asBits = (data: HostArray): HostArray => (isFloat16(data) ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data);

const isTagged = (value: unknown): value is TensorValue | DeviceValue | Tensor =>
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
