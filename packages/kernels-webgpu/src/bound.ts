/** A program with its buffers: bind groups made once, a run is one pass of dispatches. */
import {
  type AnyAxes,
  type DeviceBinding,
  type DeviceBoundKernel,
  type DeviceRecorder,
  type Fault,
  HotsetError,
  type Op,
  Params,
  type Readback,
} from "@hotset/core/backend";
import type { Check, WebgpuDevice } from "./device.js";
import { FaultHead } from "./faults.js";
import { bindingAlign, roundUp, usage } from "./flags.js";
import type { WebgpuMemory } from "./memory.js";
import type { Arrangement, Launch, Pass, Program } from "./program.js";
import { deviceTime } from "./time.js";

interface Recorded {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number];
}

export class WebgpuStep implements DeviceBoundKernel {
  readonly #owner: WebgpuDevice;
  readonly #program: Program;
  readonly #arrangement: Arrangement;
  readonly #tensors: Readonly<Record<string, WebgpuMemory>>;
  readonly #params: Params;
  readonly #axes: Record<string, number>;
  readonly #scalars: Record<string, number>;
  readonly #scratch: Record<string, GPUBuffer> = {};
  readonly #op: Op;
  /** Where the kernel notes bad indices, if it has index ports. */
  readonly #faults: FaultHead | undefined;
  /** A slot a launch: the op's parameters, then the launch's own words. */
  #uniforms: GPUBuffer | undefined;
  #recorded: readonly Recorded[] = [];
  #stale = true;
  /** What WebGPU has yet to say about work since the last wait, and the errors that it told. */
  #checks = new Set<Check>();
  #released = false;

  constructor(owner: WebgpuDevice, program: Program, { op, axes, variant, tensors, pitch, scalars }: DeviceBinding) {
    this.#owner = owner;
    this.#program = program;
    this.#op = op;
    this.#arrangement = program.arrange(pitch);
    this.#tensors = tensors as Readonly<Record<string, WebgpuMemory>>;
    this.#params = new Params(op, "wgsl").fill(axes, variant, pitch, scalars);
    this.#axes = { ...axes };
    this.#scalars = { ...scalars };
    for (const { check } of Object.values(this.#tensors)) this.#expect(check);
    const { maxBufferSize } = owner.facts;
    const { faults } = program;
    for (const [name, bytes] of Object.entries(this.#arrangement.scratch)) {
      if (bytes > maxBufferSize)
        throw new HotsetError("memory", {
          where: `webgpu: ${op.id}`,
          expected: `scratch of at most ${maxBufferSize} bytes`,
          received: `${bytes}`,
          hint: "Plan smaller axes.",
        });
      const { result, check } = owner.checked("out-of-memory", () =>
        owner.pool.take(bytes, name === faults?.scratch ? usage.storage | usage.copySource | usage.copyTarget : usage.storage),
      );
      this.#scratch[name] = result;
      this.#expect(check);
    }
    if (faults) {
      const head = this.#scratch[faults.scratch] as GPUBuffer;
      const { result, check } = owner.checked("validation", () => new FaultHead(owner, head, faults.ports));
      this.#faults = result;
      this.#expect(check);
    }
  }

  submit(): void {
    this.#settle();
    this.#expect(this.#owner.run((pass) => this.#record(pass)));
  }

  encode(recorder: DeviceRecorder): void {
    this.#settle();
    this.#owner.flush();
    if ("dispatchWorkgroups" in recorder) {
      this.#record(recorder as GPUComputePassEncoder);
      return;
    }
    if (!("beginComputePass" in recorder))
      throw new HotsetError("argument", {
        where: "webgpu: encode",
        expected: "a GPUComputePassEncoder or a GPUCommandEncoder",
        received: `a ${recorder.constructor.name}`,
      });
    const pass = (recorder as GPUCommandEncoder).beginComputePass();
    this.#record(pass);
    pass.end();
  }

  async finish(readbacks: readonly Readback[]): Promise<Fault | undefined> {
    const checks = [...this.#checks];
    this.#checks.clear();
    if (!this.#faults) {
      await this.#owner.wait(checks, readbacks);
      return undefined;
    }
    const head = this.#faults.readback();
    await this.#owner.wait(checks, [head, ...readbacks]);
    return this.#faults.first(this.#op, head.target, this.#tensors);
  }

  async time(): Promise<number | undefined> {
    this.#settle();
    this.#owner.flush();
    const us = await deviceTime(this.#owner, (pass) => this.#record(pass));
    if (us !== undefined) return us;
    this.submit();
    await this.finish([]);
    return undefined;
  }

  set(name: string, value: number): void {
    this.#params.set(name, value);
    if (name in this.#axes) this.#axes[name] = value;
    else this.#scalars[name] = value;
    this.#stale = true;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#owner.flush();
    const { pool } = this.#owner;
    for (const buffer of Object.values(this.#scratch)) pool.give(buffer);
    if (this.#uniforms) pool.give(this.#uniforms);
  }

  /** Kept until it says that nothing is wrong: steps run many times between two waits. */
  #expect(check: Check): void {
    this.#checks.add(check);
    check.then((error) => {
      if (error === undefined) this.#checks.delete(check);
    });
  }

  #record(pass: GPUComputePassEncoder): void {
    for (const { pipeline, group, workgroups } of this.#recorded) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(workgroups[0], workgroups[1]);
    }
  }

  /** Brings bind groups and uniforms up to date with the sizes and scalars set since. */
  #settle(): void {
    this.#owner.live("webgpu: run");
    if (!this.#stale) return;
    // Runs before this one have the sizes of then.
    this.#owner.flush();
    const { device, pool, pipelines } = this.#owner;
    const launches = this.#arrangement.launches(this.#axes as AnyAxes, this.#scalars);
    const params = this.#params.bytes;
    const slot = roundUp(params.length + 4 * Math.max(0, ...launches.map(({ words }) => words.length)), bindingAlign);
    const data = new Uint8Array(Math.max(1, launches.length) * slot);
    launches.forEach(({ words }, i) => {
      data.set(params, i * slot);
      data.set(new Uint8Array(Uint32Array.from(words).buffer), i * slot + params.length);
    });
    const { check } = this.#owner.checked("validation", () => {
      if (!this.#uniforms || this.#uniforms.size < data.length) {
        if (this.#uniforms) pool.give(this.#uniforms);
        this.#uniforms = pool.take(data.length, usage.uniform | usage.copyTarget);
      }
      device.queue.writeBuffer(this.#uniforms, 0, data);
      this.#recorded = launches.map((launch, i) => {
        const pass = this.#program.passes[launch.pass] as Pass;
        const pipeline = pipelines.get(pass);
        return { pipeline, workgroups: launch.workgroups, group: this.#group(pipeline, pass, launch, i * slot, slot) };
      });
    });
    this.#expect(check);
    this.#stale = false;
  }

  #group(pipeline: GPUComputePipeline, { bindings }: Pass, launch: Launch, offset: number, size: number): GPUBindGroup {
    const entries = Object.entries(bindings).map(([name, binding]): GPUBindGroupEntry => {
      if (name === "uniforms") return { binding, resource: { buffer: this.#uniforms as GPUBuffer, offset, size } };
      const tensor = this.#tensors[name];
      const range = launch.ranges?.[name];
      if (tensor) return { binding, resource: tensor.range(range?.offset, range?.bytes) };
      return { binding, resource: { buffer: this.#scratch[launch.scratch?.[name] ?? name] as GPUBuffer } };
    });
    return this.#owner.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  }
}
