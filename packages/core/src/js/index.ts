/** Backend `js`: the reference of each op, as it is. Always there; exact; slow. */
import type { Binding, BoundKernel, Fault, HostBackend, Kernel, KernelRequest, Probe } from "../backend.js";
import type { Allocation } from "../tensor.js";
import { probeCopy, probeMadd, probeRead } from "./probe.js";

export function js(): HostBackend {
  return new JsBackend();
}

class JsBackend implements HostBackend {
  readonly id = "js" as const;
  readonly target = "js";
  readonly name = "js, 1 thread";
  readonly features: readonly string[] = [];
  readonly threads = 1;
  readonly inPlace = true;

  kernel(_: KernelRequest): Kernel {
    return reference;
  }

  alloc(bytes: number): Allocation {
    return allocShared(bytes);
  }

  owns(): boolean {
    return false;
  }

  probe(probe: Probe): number {
    if (probe.kind === "read") return probeRead(probe.bytes);
    return probe.kind === "copy" ? probeCopy(probe.bytes) : probeMadd();
  }

  dispose(): void {}
}

const reference: Kernel = {
  name: "reference",
  deterministic: true,
  bind({ op, axes, variant, tensors, pitch, scalars }: Binding): BoundKernel {
    const settings: Record<string, number> = { ...scalars };
    const sizes: Record<string, number> = { ...axes };
    let fault: Fault | undefined;
    const call = {
      axes: sizes,
      variant,
      scalars: settings,
      tensors,
      pitch,
      fail(port: string, index: number, value: number): void {
        fault ??= { code: "index", port, index, value };
      },
    };
    const run = (): Fault | undefined => {
      fault = undefined;
      op.reference(call);
      return fault;
    };
    return {
      run,
      // No thread of its own: the work is done before this returns.
      start: async () => run(),
      set(name, value) {
        (name in sizes ? sizes : settings)[name] = value;
      },
      release() {},
    };
  },
};

/** Memory that cannot be detached, where the host has it. */
export function allocShared(bytes: number): Allocation {
  const size = Math.max(bytes, 1);
  const buffer = typeof SharedArrayBuffer === "undefined" ? new ArrayBuffer(size) : new SharedArrayBuffer(size);
  return { bytes: new Uint8Array(buffer, 0, bytes), release() {} };
}
