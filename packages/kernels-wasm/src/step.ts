/** A kernel with its buffers, laid out in wasm memory. */
import {
  type AnyAxes,
  type Binding,
  type BoundKernel,
  bytesOf,
  type Fault,
  type HostArray,
  HotsetError,
  Params,
  type TensorPort,
  tensorNames,
} from "@hotset/core/backend";
import { bytesOfJob, faultAt, Job, type KernelCode, type Runner, runJob } from "./job.js";
import type { Workers } from "./workers.js";

/** A tensor that does not lie in wasm memory, and its place there. */
interface Staged {
  readonly outside: Uint8Array;
  readonly inside: Uint8Array;
}

/** Frees the memory of steps whose owner was collected without `release`. */
const collected = new FinalizationRegistry<() => void>((free) => free());

export class WasmStep implements BoundKernel {
  readonly #runner: Runner;
  readonly #names: readonly string[];
  readonly #params: Params;
  readonly #job: Job;
  /** Blocks of the arena that this step keeps. */
  readonly #held: number[] = [];
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
  /** Why a run was cut short: workers may still write what belongs to it. */
  #lost: HotsetError | undefined;

  constructor(runner: Runner, code: KernelCode, binding: Binding) {
    const { op, axes, variant, tensors, pitch, scalars } = binding;
    const { arena, threads } = runner;
    const held = this.#held;
    this.#runner = runner;
    this.#capacity = axes;
    this.#names = tensorNames(op);
    this.#free = () => {
      for (const start of held.splice(0)) arena.free(start);
    };
    try {
      // Before anything is allocated: that could take the place of a tensor that was given back.
      for (const view of Object.values(tensors)) if (arena.owns(view)) this.#hold(view);
      const address = arena.alloc(bytesOfJob(threads, code), false);
      held.push(address);
      this.#job = new Job(runner, threads, code, address);
      this.#params = new Params(op, "wasm32", this.#job.params.fill(0)).fill(axes, variant, pitch, scalars);
      for (const name of this.#names) {
        const view = tensors[name];
        if (view) this.#params.setPointer(name, this.#place(view, (op.ports[name] as TensorPort).role));
      }
    } catch (error) {
      this.#free();
      throw error;
    }
    collected.register(this, this.#free, this);
  }

  run(): Fault | undefined {
    if (this.#pending > 0 || this.#lost) throw this.#refusal();
    this.#copyIn();
    try {
      return this.#ended(runJob(this.#runner, this.#job.address));
    } catch (error) {
      if (error instanceof HotsetError) this.#lose(error);
      throw error;
    }
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
    this.#job.change();
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
    if (this.#lost ?? workers.ended) throw this.#lost ?? workers.ended;
    this.#copyIn();
    let fault: number;
    try {
      fault = await workers.submit(this.#job.address);
    } catch (error) {
      this.#lose(error as HotsetError);
      throw error;
    }
    return this.#ended(fault);
  }

  #ended(address: number): Fault | undefined {
    this.#copyOut();
    if (address === 0) return undefined;
    const fault = faultAt(this.#runner, address, this.#names);
    if (fault.code === "internal")
      this.#lose(
        new HotsetError("internal", { where: "wasm: run", expected: "a step whose runs have ended", received: "one that met a trap" }),
      );
    return fault;
  }

  /** Its memory stays as it is: for others it would be memory that a worker may still write. */
  #lose(reason: HotsetError): void {
    this.#lost = reason;
    this.#held.length = 0;
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

  /** Keeps the block of a tensor in wasm memory until this step is released. */
  #hold(view: HostArray): void {
    // An empty one may stand where another block begins.
    if (view.byteLength === 0) return;
    const block = this.#runner.arena.hold(view.byteOffset);
    if (block === undefined)
      throw new HotsetError("disposed", {
        where: "wasm: bind",
        expected: "tensors of live memory",
        received: "a view of a tensor that was disposed",
        hint: "Keep the tensor until its steps are bound.",
      });
    this.#held.push(block);
  }

  /** Address of a tensor: its own in wasm memory, else that of a copy. */
  #place(view: HostArray, role: TensorPort["role"]): number {
    const { arena } = this.#runner;
    if (arena.owns(view)) return view.byteOffset;
    const address = arena.alloc(view.byteLength, false);
    this.#held.push(address);
    const staged: Staged = {
      outside: bytesOf(view),
      inside: new Uint8Array(arena.memory.buffer, address, view.byteLength),
    };
    if (role === "in" || role === "inout") this.#before.push(staged);
    if (role === "out" || role === "inout") this.#after.push(staged);
    return address;
  }

  #refusal(): HotsetError {
    if (this.#lost) return this.#lost;
    return new HotsetError("busy", {
      where: "wasm: run",
      expected: "a step that is not running",
      received: "one whose start() has not ended",
    });
  }
}
