/** Buffers that show what a kernel did wrong: canaries on both sides, poisoned outputs, starts off alignment. */
import { type Backend, isDevice } from "../backend.js";
import { type DType, dtypes, type HostArray } from "../dtype.js";
import type { Allocation } from "../tensor.js";

const canaryBytes = 256;
const canary = 0xc5;

/** Where tensors lie: ordinary arrays, shared ones, or the backend's own memory. */
export type Placement = "host" | "shared" | "owned";

export interface Guarded {
  readonly view: HostArray;
  /** Writes the poison over the whole tensor. */
  poison(): void;
  /** Which side was written past, if any. */
  broken(): string | undefined;
  release(): void;
}

/** A tensor of `length` storage elements that starts `shift` elements off a 256-byte boundary. */
export function guarded(backend: Backend, placement: Placement, dtype: DType, length: number, shift: number): Guarded {
  const { storage } = dtypes[dtype];
  const size = storage.BYTES_PER_ELEMENT;
  const start = canaryBytes + shift * size;
  const total = start + length * size + canaryBytes;
  const allocation = allocate(backend, placement, total);
  const all = allocation.bytes;
  all.fill(canary);
  const view = new storage(all.buffer, all.byteOffset + start, length);
  return {
    view,
    poison: () => new Uint8Array(view.buffer, view.byteOffset, view.byteLength).fill(0xff),
    broken() {
      if (all.subarray(0, start).some((byte) => byte !== canary)) return "before its start";
      return all.subarray(start + length * size).some((byte) => byte !== canary) ? "past its end" : undefined;
    },
    release: () => allocation.release(),
  };
}

function allocate(backend: Backend, placement: Placement, bytes: number): Allocation {
  if (placement === "owned" && !isDevice(backend)) return backend.alloc(bytes);
  const buffer = placement === "shared" && typeof SharedArrayBuffer !== "undefined" ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes);
  return { bytes: new Uint8Array(buffer), release() {} };
}

/** A poisoned element: all bits set, which is NaN for floats and -1 or the largest value for integers. */
export const isPoison = (view: HostArray, i: number): boolean => {
  const size = view.BYTES_PER_ELEMENT;
  return new Uint8Array(view.buffer, view.byteOffset + i * size, size).every((byte) => byte === 0xff);
};
