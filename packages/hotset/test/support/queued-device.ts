/**
 * A device without a GPU: memory that the host cannot see, one queue for everything, kernels that are the references. It
 * counts what is held, waited for and brought back, and fails where a test says so.
 */
import { HotsetError } from "@hotset/core";
import type { DeviceBackend, DeviceBinding, DeviceBoundKernel, DeviceMemory, Fault, HostArray, Readback } from "@hotset/core/backend";
import { dtypes, portDType } from "@hotset/core/backend";

export interface QueuedDevice extends DeviceBackend {
  /** Bytes and steps that are held and batches that are open now, and waits and bytes read back so far. */
  readonly counts: { bytes: number; steps: number; waits: number; readBytes: number; batches: number };
  /** Asked before each allocation, step, upload and run: what it returns is thrown. */
  fails: (what: "alloc" | "bind" | "write" | "run") => HotsetError | undefined;
  /** Ops that it has no kernel for. */
  readonly lacks: Set<string>;
  /** Set to lose it. */
  lost: string | undefined;
  software: boolean;
}

export function queuedDevice(): QueuedDevice {
  let queue: (() => void)[] = [];
  const counts = { bytes: 0, steps: 0, waits: 0, readBytes: 0, batches: 0 };
  const check = (what: Parameters<QueuedDevice["fails"]>[0]): void => {
    const error = backend.fails(what);
    if (error) throw error;
  };
  /** Does what is queued, and brings back memory. */
  const wait = async (readbacks: readonly Readback[]): Promise<void> => {
    counts.waits++;
    const work = queue;
    queue = [];
    for (const one of work) one();
    const images = readbacks.map(({ memory, target }) => (memory as Memory).hidden.slice(0, target.length));
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (backend.lost)
      throw new HotsetError("device", { where: "queued", expected: "a device", received: `one that was lost: ${backend.lost}` });
    for (const [i, { target }] of readbacks.entries()) {
      counts.readBytes += target.length;
      target.set(images[i] as Uint8Array);
    }
  };

  class Memory implements DeviceMemory {
    readonly hidden: Uint8Array;
    readonly bytes: number;
    readonly #own: boolean;
    #released = false;
    constructor(hidden: Uint8Array, own: boolean) {
      this.hidden = hidden;
      this.bytes = hidden.length;
      this.#own = own;
      if (own) counts.bytes += this.bytes;
    }
    write(source: Uint8Array): void {
      check("write");
      const image = source.slice();
      queue.push(() => this.hidden.set(image));
    }
    read(target: Uint8Array): Promise<void> {
      return wait([{ memory: this, target }]);
    }
    part(offset: number, bytes: number): Memory {
      return new Memory(this.hidden.subarray(offset, offset + bytes), false);
    }
    /** Parts of one buffer disturb each other, as on WebGPU. */
    sharesWith(other: DeviceMemory): boolean {
      return (other as Memory).hidden.buffer === this.hidden.buffer;
    }
    release(): void {
      if (!this.#own || this.#released) return;
      this.#released = true;
      counts.bytes -= this.bytes;
      // Whoever reads it later is found out.
      queue.push(() => this.hidden.fill(255));
    }
  }

  const bound = ({ op, axes, variant, tensors, pitch, scalars }: DeviceBinding): DeviceBoundKernel => {
    check("bind");
    counts.steps++;
    const settings: Record<string, number> = { ...axes, ...scalars };
    const views = Object.fromEntries(
      Object.entries(tensors).map(([name, memory]) => {
        const { storage } = dtypes[portDType(op, name, variant) as keyof typeof dtypes];
        const { buffer, byteOffset, byteLength } = (memory as Memory).hidden;
        return [name, new storage(buffer, byteOffset, byteLength / storage.BYTES_PER_ELEMENT) as HostArray];
      }),
    );
    let fault: Fault | undefined;
    return {
      submit() {
        check("run");
        const now = { ...settings };
        queue.push(() =>
          op.reference({
            axes: now,
            variant,
            scalars: now,
            tensors: views,
            pitch,
            fail(port, index, value) {
              fault ??= { code: "index", port, index, value };
            },
          }),
        );
      },
      encode() {
        throw new Error("nobody records here");
      },
      async finish(readbacks) {
        await wait(readbacks);
        const found = fault;
        fault = undefined;
        return found;
      },
      time: async () => undefined,
      set(name, value) {
        settings[name] = value;
      },
      release() {
        counts.steps--;
      },
    };
  };

  const backend: QueuedDevice = {
    id: "cuda",
    target: "queued",
    name: "a queue on the host",
    features: [],
    threads: 0,
    counts,
    fails: () => undefined,
    lacks: new Set(),
    lost: undefined,
    software: false,
    device: {
      get software() {
        return backend.software;
      },
      get lost() {
        return backend.lost;
      },
    },
    kernel({ op }) {
      if (op.cpuByDesign) return `cpu by design: ${op.cpuByDesign}`;
      if (backend.lacks.has(op.id)) return `no kernel for ${op.id}`;
      return { name: "reference", deterministic: true, prepare: async () => {}, bind: bound };
    },
    alloc(bytes) {
      check("alloc");
      return new Memory(new Uint8Array(Math.ceil(bytes / 16) * 16).subarray(0, bytes), true);
    },
    batch() {
      counts.batches++;
      return { end: () => void counts.batches-- };
    },
    adopt: () => "a buffer of another device",
    owns: (memory) => memory instanceof Memory,
    probe: async () => 1,
    dispose() {},
  };
  return backend;
}
