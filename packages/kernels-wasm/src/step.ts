/** A kernel with its buffers, laid out in wasm memory. */
import {
  type AnyAxes,
  type Binding,
  type BoundKernel,
  type Fault,
  type HostArray,
  HotsetError,
  Params,
  type TensorPort,
  tensorNames,
} from "@hotset/core/backend";
import type { Arena } from "./arena.js";
import type { Exports } from "./instance.js";
import type { Workers } from "./workers.js";

/** What steps of one backend share. */
export interface Runner {
  readonly arena: Arena;
  readonly exports: Exports;
  readonly threads: number;
  /** 1: this thread and the helpers run a job together; 0: this thread does alone. */
  readonly together: 0 | 1;
  readonly workers: Workers | undefined;
}

/** Bytes of a job with its plan (assembly/lib/run.ts), and of one slot's status (assembly/lib/kernel.ts). */
const jobBytes = 32;
const planBytes = 32 + 512;
const statusBytes = 24;
const staleWord = 6;

const lines = (bytes: number): number => Math.ceil(bytes / 64) * 64;

/** A tensor that does not lie in wasm memory, and its place there. */
interface Staged {
  readonly outside: Uint8Array;
  readonly inside: Uint8Array;
}

/** A job in memory: the block that holds it, its params and its scratch. */
export function layOutJob(
  { arena, threads }: Runner,
  op: number,
  paramsBytes: number,
  scratchBytes: number,
): { job: number; params: Uint8Array; words: Int32Array } {
  const statuses = lines(jobBytes + planBytes);
  const params = statuses + lines(statusBytes * threads);
  const scratch = params + lines(paramsBytes);
  const job = arena.alloc(scratch + scratchBytes, false);
  const words = new Int32Array(arena.memory.buffer, job, jobBytes / 4);
  words.set([op, job + params, job + scratch, scratchBytes, threads, job + statuses, 1, 0]);
  return { job, params: new Uint8Array(arena.memory.buffer, job + params, paramsBytes), words };
}

/** Frees the memory of steps whose owner was collected without `release`. */
const collected = new FinalizationRegistry<() => void>((free) => free());

export class WasmStep implements BoundKernel {
  readonly #runner: Runner;
  readonly #names: readonly string[];
  readonly #params: Params;
  readonly #job: number;
  readonly #words: Int32Array;
  /** Copied in before a run, and out after it. */
  readonly #before: Staged[] = [];
  readonly #after: Staged[] = [];
  readonly #capacity: AnyAxes;
  /** Live axes below their capacity: the kernel leaves the rest of an output as it is, so that comes in too. */
  readonly #partial = new Set<string>();
  readonly #free: () => void;
  #pending = 0;
  #last: Promise<unknown> = Promise.resolve();
  #released = false;

  constructor(runner: Runner, opNumber: number, paramsBytes: number, scratchBytes: number, binding: Binding) {
    const { op, axes, variant, tensors, pitch, scalars } = binding;
    const { arena } = runner;
    const held: number[] = [];
    const free = () => {
      for (const start of held.splice(0)) arena.free(start);
    };
    this.#runner = runner;
    this.#capacity = axes;
    this.#names = tensorNames(op);
    this.#free = free;
    try {
      const { job, params, words } = layOutJob(runner, opNumber, paramsBytes, scratchBytes);
      held.push(job);
      this.#job = job;
      this.#words = words;
      this.#params = new Params(op, "wasm32", params.fill(0)).fill(axes, variant, pitch, scalars);
      for (const name of this.#names) {
        const view = tensors[name];
        if (view) this.#params.setPointer(name, this.#place(view, (op.ports[name] as TensorPort).role, held));
      }
    } catch (error) {
      free();
      throw error;
    }
    collected.register(this, free, this);
  }

  run(): Fault | undefined {
    if (this.#pending > 0) throw this.#busy();
    this.#copyIn();
    const fault = this.#runner.exports.run(this.#job, this.#runner.together);
    this.#copyOut();
    return fault === 0 ? undefined : this.#fault(fault);
  }

  async start(): Promise<Fault | undefined> {
    const { workers } = this.#runner;
    if (!workers) return this.run();
    // The steps of others queue behind each other; a second run of this one must not overwrite its inputs.
    const earlier = this.#pending > 0 ? this.#last : undefined;
    this.#pending++;
    const done = earlier ? earlier.then(() => this.#submit(workers)) : this.#submit(workers);
    this.#last = done.catch(() => {});
    try {
      return await done;
    } finally {
      this.#pending--;
      if (this.#released && this.#pending === 0) this.#free();
    }
  }

  set(name: string, value: number): void {
    this.#params.set(name, value);
    this.#words[staleWord] = 1;
    const capacity = this.#capacity[name];
    if (capacity === undefined) return;
    if (value < capacity) this.#partial.add(name);
    else this.#partial.delete(name);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    collected.unregister(this);
    if (this.#pending === 0) this.#free();
  }

  async #submit(workers: Workers): Promise<Fault | undefined> {
    this.#copyIn();
    const fault = await workers.submit(this.#job);
    this.#copyOut();
    return fault === 0 ? undefined : this.#fault(fault);
  }

  #copyIn(): void {
    for (let i = 0; i < this.#before.length; i++) {
      const { inside, outside } = this.#before[i] as Staged;
      inside.set(outside);
    }
    if (this.#partial.size === 0) return;
    for (const { inside, outside } of this.#after) inside.set(outside);
  }

  #copyOut(): void {
    for (let i = 0; i < this.#after.length; i++) {
      const { inside, outside } = this.#after[i] as Staged;
      outside.set(inside);
    }
  }

  /** Address of a tensor: its own in wasm memory, else that of a copy. */
  #place(view: HostArray, role: TensorPort["role"], held: number[]): number {
    const { arena } = this.#runner;
    if (arena.owns(view)) {
      const block = arena.hold(view.byteOffset);
      if (block !== undefined) held.push(block);
      return view.byteOffset;
    }
    const address = arena.alloc(view.byteLength, false);
    held.push(address);
    const staged: Staged = {
      outside: new Uint8Array(view.buffer, view.byteOffset, view.byteLength),
      inside: new Uint8Array(arena.memory.buffer, address, view.byteLength),
    };
    if (role === "in" || role === "inout") this.#before.push(staged);
    if (role === "out" || role === "inout") this.#after.push(staged);
    return address;
  }

  #fault(address: number): Fault {
    const status = new DataView(this.#runner.arena.memory.buffer, address >>> 0, statusBytes);
    return {
      code: status.getUint32(0, true) === 1 ? "index" : "internal",
      port: this.#names[status.getUint32(4, true)] ?? "?",
      index: status.getFloat64(8, true),
      value: status.getFloat64(16, true),
    };
  }

  #busy(): HotsetError {
    return new HotsetError("busy", { where: "wasm: run", expected: "a step that is not running", received: "one whose start() has not ended" });
  }
}
