/** A queue on a CUDA device: what memory, kernels and probes of one backend share, and how its errors read. */
import { HotsetError, lostError } from "@hotset/core/backend";
import type { Addon, AddonFault, Description, DeviceInfo } from "./addon.js";

/** Gives back what belongs to objects that were collected without `release`. */
export const collected = new FinalizationRegistry<() => void>((release) => release());

// Made outside of constructors, whose other functions hold `this`.
const closing = (addon: Addon, queue: number) => () => addon.close(queue);

interface AddonError extends Error {
  readonly kind?: "memory" | "device" | "internal";
}

export class CudaDevice {
  readonly addon: Addon;
  readonly info: DeviceInfo;
  readonly kernels: Description["kernels"];
  readonly queue: number;
  #lost: string | undefined;

  /** Throws HotsetError where the device cannot be opened. */
  constructor(addon: Addon, { kernels, devices }: Description, index: number) {
    this.addon = addon;
    this.kernels = kernels;
    this.info = devices[index] as DeviceInfo;
    this.queue = this.attempt("cuda", () => addon.open(index));
    collected.register(this, closing(addon, this.queue), this);
  }

  get lost(): string | undefined {
    return this.#lost;
  }

  /** Throws where the device is gone. */
  live(where: string): void {
    if (this.#lost !== undefined) throw lostError(where, "cuda", this.#lost);
  }

  /** Calls the addon; its errors become HotsetErrors, and the loss of the device is kept. */
  attempt<T>(where: string, call: () => T): T {
    this.live(where);
    try {
      return call();
    } catch (error) {
      throw this.#translated(where, error);
    }
  }

  /** Waits for what is queued, with memory copied to the host on the way. */
  async wait(
    where: string,
    step: number | undefined,
    addresses: BigUint64Array,
    targets: readonly Uint8Array[],
  ): Promise<AddonFault | undefined> {
    this.live(where);
    const lengths = targets.map(({ length }) => length);
    const fault = await this.promised(where, () => this.addon.wait(this.queue, step, addresses, targets));
    const detached = targets.findIndex(({ length }, i) => length !== lengths[i]);
    if (detached >= 0)
      throw new HotsetError("detached", {
        where,
        expected: `an array that keeps its ${lengths[detached]} bytes`,
        received: `${targets[detached]?.length}: its buffer was transferred or resized`,
      });
    return fault;
  }

  /** The same for promises of the addon. */
  async promised<T>(where: string, call: () => Promise<T>): Promise<T> {
    try {
      return await this.attempt(where, call);
    } catch (error) {
      throw this.#translated(where, error);
    }
  }

  /** What runs on ends first; nothing more is queued. */
  dispose(): void {
    this.#lost ??= "its backend was disposed";
    collected.unregister(this);
    this.addon.close(this.queue);
  }

  #translated(where: string, error: unknown): unknown {
    if (error instanceof HotsetError || !(error instanceof Error)) return error;
    const { kind, message } = error as AddonError;
    if (kind === "device") {
      this.#lost ??= message;
      return lostError(where, "cuda", this.#lost);
    }
    if (kind === "memory")
      return new HotsetError("memory", {
        where: "cuda memory",
        expected: `memory on ${this.info.name}`,
        received: message,
        hint: "Dispose tensors and steps that are not used, or plan smaller axes.",
      });
    return new HotsetError("internal", {
      where,
      expected: "the device to take the call",
      received: message,
      hint: "Unless a pointer or stream that was bound is no longer there, this is a bug in Hotset: please report it.",
      cause: error,
    });
  }
}
