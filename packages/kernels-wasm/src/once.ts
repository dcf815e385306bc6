/**
 * Bind, run and release in one, for small calls: the job and the copies of its tensors lie in memory that is kept, 2 to
 * 3 us less than laying out a step each time. Large calls copy much longer than that, and take a step.
 */
import { type Binding, bytesOf, type Fault, HotsetError, type Op, Params, type TensorPort, tensorNames } from "@hotset/core/backend";
import type { Arena } from "./arena.js";
import { bytesOfJob, faultAt, Job, type KernelCode, lines, type Runner, runJob } from "./job.js";
import { WasmStep } from "./step.js";

const mostBytes = 1 << 20;

/** What the calls of one backend use in turn: a call has ended when the next one begins. */
export class CallMemory {
  /** Who wrote the job that is there. */
  user: Once | undefined;
  readonly size: number;
  readonly #arena: Arena;
  #bytes: Uint8Array | undefined;

  constructor(arena: Arena) {
    this.#arena = arena;
    this.size = Math.min(mostBytes, arena.limit / 8);
  }

  /** The memory; undefined where there is none left. */
  get bytes(): Uint8Array | undefined {
    if (this.#bytes) return this.#bytes;
    try {
      const address = this.#arena.alloc(this.size, false);
      this.#bytes = new Uint8Array(this.#arena.memory.buffer, address, this.size);
    } catch (error) {
      if (!(error instanceof HotsetError) || error.code !== "memory") throw error;
    }
    return this.#bytes;
  }

  /** Leaves it to those who may still write there; the next call takes other memory. */
  abandon(): void {
    this.#bytes = this.user = undefined;
  }
}

export class Once {
  readonly #runner: Runner;
  readonly #memory: CallMemory;
  readonly #code: KernelCode;
  readonly #names: readonly string[];
  readonly #outputs: readonly boolean[];
  readonly #inputs: readonly boolean[];
  /** Where each tensor lies in the memory, from its start; -1: it lies in wasm memory by itself. */
  readonly #places: Int32Array;
  #job: Job | undefined;
  #params: Params | undefined;

  constructor(runner: Runner, memory: CallMemory, code: KernelCode, op: Op) {
    this.#runner = runner;
    this.#memory = memory;
    this.#code = code;
    this.#names = tensorNames(op);
    const roles = this.#names.map((name) => (op.ports[name] as TensorPort).role);
    this.#inputs = roles.map((role) => role !== "out");
    this.#outputs = roles.map((role) => role !== "in");
    this.#places = new Int32Array(roles.length);
  }

  run(binding: Binding): Fault | undefined {
    const { tensors } = binding;
    const bytes = this.#fits(tensors) ? this.#memory.bytes : undefined;
    if (!bytes) return this.#asStep(binding);
    const job = this.#open(bytes, binding);
    for (let i = 0; i < this.#places.length; i++) {
      const view = tensors[this.#names[i] as string];
      if (view && this.#inputs[i] && (this.#places[i] as number) >= 0) bytes.set(bytesOf(view), this.#places[i]);
    }
    let address: number;
    try {
      address = runJob(this.#runner, job.address);
    } catch (error) {
      if (error instanceof HotsetError) this.#memory.abandon();
      throw error;
    }
    for (let i = 0; i < this.#places.length; i++) {
      const view = tensors[this.#names[i] as string];
      const at = this.#places[i] as number;
      if (view && this.#outputs[i] && at >= 0) bytesOf(view).set(bytes.subarray(at, at + view.byteLength));
    }
    if (address === 0) return undefined;
    const fault = faultAt(this.#runner, address, this.#names);
    if (fault.code === "internal") this.#memory.abandon();
    return fault;
  }

  /** Gives each tensor its place; false where they do not fit. */
  #fits(tensors: Binding["tensors"]): boolean {
    const { arena, threads } = this.#runner;
    let end = lines(bytesOfJob(threads, this.#code));
    for (let i = 0; i < this.#places.length; i++) {
      const view = tensors[this.#names[i] as string];
      if (!view) continue;
      const inside = arena.owns(view);
      // A view of memory that was given back is the step's to refuse.
      if (inside && view.byteLength > 0 && !arena.inUse(view.byteOffset)) return false;
      if (!inside && end > this.#memory.size) return false;
      this.#places[i] = inside ? -1 : end;
      if (!inside) end += lines(view.byteLength);
    }
    return end <= this.#memory.size;
  }

  /** The job with its parameters, as this call has them. */
  #open(bytes: Uint8Array, { op, axes, variant, tensors, pitch, scalars }: Binding): Job {
    let job = this.#job;
    if (!job || job.address !== bytes.byteOffset) {
      job = this.#job = new Job(this.#runner, this.#runner.threads, this.#code, bytes.byteOffset);
      this.#params = new Params(op, "wasm32", job.params);
    } else if (this.#memory.user !== this) job.write();
    else job.change();
    this.#memory.user = this;
    const params = this.#params as Params;
    params.fill(axes, variant, pitch, scalars);
    for (let i = 0; i < this.#places.length; i++) {
      const name = this.#names[i] as string;
      const view = tensors[name];
      const at = this.#places[i] as number;
      params.setPointer(name, view ? (at < 0 ? view.byteOffset : bytes.byteOffset + at) : 0);
    }
    return job;
  }

  #asStep(binding: Binding): Fault | undefined {
    const step = new WasmStep(this.#runner, this.#code, binding);
    try {
      return step.run();
    } finally {
      step.release();
    }
  }
}
