/** What a model holds in a backend's memory: weights, each array once, tensors and steps, given back together. */
import { type Backend, isDevice } from "../backend.js";
import { type DType, dtypes, type HostArray } from "../dtype.js";
import { HotsetError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { Weight } from "./config.js";

/** Weights of so many bytes are there before the next one is sent: uploads wait in memory of the driver until then. */
const largeBytes = 1 << 20;

export class Holdings {
  readonly hotset: Hotset;
  readonly backend: Backend;
  readonly #held: { dispose(): void }[] = [];
  readonly #steps: Step[] = [];
  readonly #placed = new Map<HostArray, { data: HostArray | Tensor; dtype: DType }>();

  constructor(hotset: Hotset, backend: Backend) {
    this.hotset = hotset;
    this.backend = backend;
  }

  keep<T extends { dispose(): void }>(value: T): T {
    this.#held.push(value);
    return value;
  }

  step<S extends Step<never>>(step: S): Step {
    this.#steps.push(step as unknown as Step);
    return this.keep(step as unknown as Step);
  }

  room<D extends DType>(dtype: D, ...shape: number[]): Tensor<D> {
    return this.keep(this.hotset.alloc(dtype, shape, this.backend.id));
  }

  /** What a port is given: the array itself where the backend reads it in place, else a copy in the backend's memory. */
  async weight({ data, dtype }: Weight): Promise<never> {
    const known = this.#placed.get(data) ?? { data: await this.#place(data, dtype), dtype };
    this.#placed.set(data, known);
    return known as never;
  }

  vector(data: Float32Array): Promise<never> {
    return this.weight({ data, dtype: "f32" });
  }

  /** On a device: waits for what it was asked for so far, here and in `others`. Throws what went wrong: memory is found missing late. */
  async settled(tensors: readonly Tensor[], others: readonly { done(): Promise<void> }[]): Promise<void> {
    if (!isDevice(this.backend)) return;
    const asked = [...tensors.map((tensor) => here(tensor)), ...[...this.#steps, ...others].map((step) => step.done())];
    await Promise.all(asked);
  }

  dispose(): void {
    for (const one of this.#held.splice(0).reverse()) one.dispose();
  }

  async #place(data: HostArray, dtype: DType): Promise<HostArray | Tensor> {
    const { backend } = this;
    if (!isDevice(backend) && backend.inPlace) return data;
    const { blockElements, blockBytes } = dtypes[dtype];
    const tensor = this.room(dtype, (data.byteLength / blockBytes) * blockElements).upload(data as never);
    if (data.byteLength >= largeBytes) await here(tensor);
    return tensor;
  }
}

/** Reading a word waits for what was queued, and tells whether there was room. */
const here = (tensor: Tensor): Promise<void> | undefined => tensor.memory?.read(new Uint8Array(4));

/** The error where there is no room for a model, in place of the backend's own. */
export function roomError(error: unknown, backend: Backend, weightBytes: number, context: number): unknown {
  if (!(error instanceof HotsetError) || error.code !== "memory") return error;
  return new HotsetError("memory", {
    where: "openModel",
    expected: `room on ${backend.id} for ${(weightBytes / 2 ** 20).toFixed(1)} MiB of weights and a cache of ${context} tokens`,
    received: error.message,
    hint: "Open it with a smaller context, store it in fewer bits, or use another backend.",
    cause: error,
  });
}
