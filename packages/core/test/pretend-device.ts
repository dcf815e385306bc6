/** A device without a GPU: its memory is hidden from the host, runs are queued, kernels are the references. For tests. */
import { HotsetError } from "@hotset/core";
import type {
  DeviceBackend,
  DeviceBinding,
  DeviceBoundKernel,
  DeviceKernel,
  DeviceMemory,
  Fault,
  HostArray,
  KernelRequest,
} from "@hotset/core/backend";
import { dtypes, portDType } from "@hotset/core/backend";

class Memory implements DeviceMemory {
  readonly hidden: Uint8Array;
  readonly bytes: number;
  constructor(hidden: Uint8Array) {
    this.hidden = hidden;
    this.bytes = hidden.length;
  }
  write(source: Uint8Array): void {
    this.hidden.set(source);
  }
  async read(target: Uint8Array): Promise<void> {
    target.set(this.hidden.subarray(0, target.length));
  }
  part(offset: number, bytes: number): Memory {
    return new Memory(this.hidden.subarray(offset, offset + bytes));
  }
  sharesWith(other: DeviceMemory): boolean {
    return (other as Memory).hidden.buffer === this.hidden.buffer;
  }
  release(): void {}
}

export interface Pretended extends DeviceBackend {
  /** What it was asked to do, in order. */
  readonly log: string[];
  /** Set to lose the device. */
  reason: string | undefined;
  /** Bytes it still has. */
  left: number;
  software: boolean;
}

export function pretendDevice(): Pretended {
  const log: string[] = [];
  const backend: Pretended = {
    id: "cuda",
    target: "pretend",
    name: "a pretended device",
    features: [],
    threads: 0,
    log,
    reason: undefined,
    left: 1 << 30,
    software: false,
    device: {
      get software() {
        return backend.software;
      },
      get lost() {
        return backend.reason;
      },
    },
    kernel: (_: KernelRequest): DeviceKernel => ({
      name: "reference",
      deterministic: true,
      async prepare() {
        log.push("prepare");
        if (backend.reason) throw new HotsetError("device", { where: "pretend", expected: "a device", received: "none" });
      },
      bind: (binding) => bound(binding, log),
    }),
    alloc(bytes) {
      if (bytes > backend.left) throw new HotsetError("memory", { where: "pretend", expected: `${bytes} bytes`, received: "none" });
      return new Memory(new Uint8Array(Math.ceil(bytes / 256) * 256).subarray(0, bytes));
    },
    adopt: (buffer) =>
      "pointer" in buffer && buffer.pointer === 4096n ? new Memory(new Uint8Array(buffer.bytes)) : "a buffer of another device",
    owns: (memory) => memory instanceof Memory,
    probe: async () => 1,
    dispose() {},
  };
  return backend;
}

function bound({ op, axes, variant, tensors, pitch, scalars }: DeviceBinding, log: string[]): DeviceBoundKernel {
  const settings: Record<string, number> = { ...axes, ...scalars };
  let queued: Record<string, number>[] = [];
  const views = Object.fromEntries(
    Object.entries(tensors).map(([name, memory]) => {
      const { storage } = dtypes[portDType(op, name, variant) as keyof typeof dtypes];
      const { buffer, byteOffset, byteLength } = (memory as Memory).hidden;
      return [name, new storage(buffer, byteOffset, byteLength / storage.BYTES_PER_ELEMENT) as HostArray];
    }),
  );
  return {
    submit() {
      log.push("submit");
      queued.push({ ...settings });
    },
    encode(recorder) {
      log.push("encode");
      (recorder as { commands: string[] }).commands.push(op.id);
    },
    async finish(readbacks) {
      log.push(`finish ${readbacks.length}`);
      let fault: Fault | undefined;
      for (const now of queued)
        op.reference({
          axes: now,
          variant,
          scalars: now,
          tensors: views,
          pitch,
          fail(port, index, value) {
            fault ??= { code: "index", port, index, value };
          },
        });
      queued = [];
      for (const { memory, target } of readbacks) await memory.read(target);
      return fault;
    },
    time: async () => 5,
    set(name, value) {
      settings[name] = value;
    },
    release() {
      log.push("release");
    },
  };
}
