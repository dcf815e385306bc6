/**
 * Bad indices that kernels met, without a wait of their own. Word i of the head of a scratch buffer belongs to the i-th
 * index port: kernels put the largest ~index there by atomicMax, so 0 is none and what is read is the lowest bad entry.
 * The wait of `finish` brings the head along and clears it; the value is then fetched where there was one.
 */
import { dtypes, type Fault, type Op, type TensorPort } from "@hotset/core/backend";
import type { DeviceReadback, WebgpuDevice } from "./device.js";
import { usage } from "./flags.js";
import { WebgpuMemory } from "./memory.js";
import type { Pass } from "./program.js";

/** Bytes of the head: one binding alignment, 64 ports. */
export const faultBytes = 256;

export const fetchPass: Pass = { pieces: ["lib/fetch"], flags: [], entry: "fetch", constants: {}, bindings: {} };

const entryUsage = usage.storage | usage.copySource | usage.copyTarget;

export class FaultHead {
  readonly #owner: WebgpuDevice;
  readonly #head: WebgpuMemory;
  readonly #ports: readonly string[];

  /** Of a buffer whose contents are left over. */
  constructor(owner: WebgpuDevice, buffer: GPUBuffer, ports: readonly string[]) {
    this.#owner = owner;
    this.#ports = ports;
    this.#head = new WebgpuMemory(owner, buffer, 0, faultBytes, { own: false, check: Promise.resolve(undefined) });
    this.#head.write(new Uint8Array(faultBytes));
  }

  /** To be read by a wait, which clears it for the next. */
  readback(): DeviceReadback {
    return { memory: this.#head, target: new Uint8Array(4 * this.#ports.length), clear: true };
  }

  /** The first fault by the order of the ports, from what the wait brought. */
  async first(op: Op, target: Uint8Array, tensors: Readonly<Record<string, WebgpuMemory>>): Promise<Fault | undefined> {
    const noted = new Uint32Array(target.buffer);
    const at = noted.findIndex((word) => word !== 0);
    if (at < 0) return undefined;
    const port = this.#ports[at] as string;
    const index = ~(noted[at] as number) >>> 0;
    const bits = await this.#fetch(tensors[port] as WebgpuMemory, index);
    const signed = dtypes[(op.ports[port] as TensorPort).dtypes[0] as "i32"].storage === Int32Array;
    return { code: "index", port, index, value: signed ? bits | 0 : bits };
  }

  /** By a kernel: an application's buffer need not be one that can be copied from. */
  async #fetch(tensor: WebgpuMemory, index: number): Promise<number> {
    const { device, pool, pipelines } = this.#owner;
    const buffer = pool.take(faultBytes, entryUsage);
    const entry = new WebgpuMemory(this.#owner, buffer, 0, 8, { own: false, check: Promise.resolve(undefined) });
    const { check } = this.#owner.checked("validation", () => {
      entry.write(new Uint8Array(Uint32Array.of(index, 0).buffer));
      const pipeline = pipelines.get(fetchPass);
      const resources = [tensor.range(), entry.range()];
      const group = device.createBindGroup({
        layout: pipeline.getBindGroupLayout(0),
        entries: resources.map((resource, binding) => ({ binding, resource })),
      });
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(1);
      pass.end();
      device.queue.submit([encoder.finish()]);
    });
    const target = new Uint8Array(8);
    await this.#owner.wait([check], [{ memory: entry, target }]);
    pool.give(buffer);
    return new Uint32Array(target.buffer)[1] as number;
  }
}
