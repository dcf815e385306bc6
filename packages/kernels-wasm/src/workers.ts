/** The workers of one backend: helpers that take tasks, and a conductor that runs whole jobs while the caller goes on. */
import { HotsetError } from "@hotset/core/backend";
import { type Host, type WorkerHandle, words } from "./host.js";

interface Pending {
  readonly job: number;
  /** With the first fault's address, or 0. */
  resolve(fault: number): void;
  reject(error: HotsetError): void;
}

/** Milliseconds to wait for workers to start. */
const patience = 10_000;

export class Workers {
  readonly #host: Host;
  readonly #module: WebAssembly.Module;
  readonly #memory: WebAssembly.Memory;
  readonly #threads: number;
  readonly #words: Int32Array<ArrayBufferLike>;
  #helpers: WorkerHandle[] | undefined;
  #conductor: WorkerHandle | undefined;
  readonly #queue: Pending[] = [];
  /** The first of the queue is with the conductor. */
  #busy = false;
  #ended: HotsetError | undefined;

  constructor(host: Host, module: WebAssembly.Module, memory: WebAssembly.Memory, threads: number) {
    this.#host = host;
    this.#module = module;
    this.#memory = memory;
    this.#threads = threads;
    this.#words = new Int32Array(memory.buffer, 0, 512);
  }

  /** Why it has ended, if it has. */
  get ended(): HotsetError | undefined {
    return this.#ended;
  }

  /** Starts the helpers, once. Work goes on without those that are not there yet. */
  startHelpers(): void {
    if (this.#helpers || this.#ended) return;
    this.#helpers = [];
    try {
      for (let slot = 1; slot < this.#threads; slot++)
        this.#helpers.push(
          this.#start(
            slot,
            () => {},
            () => {},
          ),
        );
    } catch {
      // Then fewer threads take the tasks.
    }
  }

  /** Starts the helpers and waits for them; the reason, if one fails. */
  async helpersStarted(): Promise<string | undefined> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve(`no worker started in ${patience / 1000} s`), patience);
    });
    try {
      this.#helpers = [];
      const started: Promise<string | undefined>[] = [];
      for (let slot = 1; slot < this.#threads; slot++)
        started.push(new Promise((resolve) => this.#helpers?.push(this.#start(slot, () => resolve(undefined), resolve))));
      return await Promise.race([late, Promise.all(started).then((reasons) => reasons.find((reason) => reason !== undefined))]);
    } catch (error) {
      return (error as Error).message;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits until the helpers are at work: for measurements. Only where this thread may block. */
  waitForHelpers(): void {
    const end = performance.now() + patience;
    if (!this.#helpers) return;
    for (;;) {
      const up = Atomics.load(this.#words, words.up);
      const left = end - performance.now();
      if (up >= this.#threads - 1 || left <= 0) return;
      Atomics.wait(this.#words, words.up, up, left);
    }
  }

  /** Has a job run by the workers, after those before it. The process stays alive until it is done. */
  submit(job: number): Promise<number> {
    if (this.#ended) return Promise.reject(this.#ended);
    this.startHelpers();
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject });
      if (!this.#busy) this.#next();
    });
  }

  dispose(): void {
    this.#end(new HotsetError("disposed", { where: "wasm", expected: "a live backend", received: "one that was disposed" }));
  }

  #next(): void {
    const first = this.#queue[0];
    this.#busy = first !== undefined;
    if (!first) {
      this.#conductor?.hold(false);
      return;
    }
    try {
      this.#conductor ??= this.#start(
        0,
        (fault) => this.#done(fault),
        (reason) => this.#failed(reason),
      );
    } catch (error) {
      this.#failed((error as Error).message);
      return;
    }
    this.#conductor.hold(true);
    Atomics.store(this.#words, words.request, first.job | 0);
    Atomics.notify(this.#words, words.request);
  }

  #done(fault: number): void {
    if (fault < 0) {
      this.#failed("a trap in a worker");
      return;
    }
    const first = this.#queue.shift();
    this.#next();
    first?.resolve(fault);
  }

  #failed(reason: string): void {
    this.#end(
      new HotsetError("internal", {
        where: "wasm",
        expected: "a worker to run the kernel",
        received: reason,
        hint: "Use wasm({ threads: 1 }), which has no workers.",
      }),
    );
  }

  #end(error: HotsetError): void {
    this.#ended ??= error;
    // A job on this thread must not wait for a task that a worker took just before it was stopped.
    Atomics.store(this.#words, words.broken, 1);
    const stopped = [...(this.#helpers ?? []), this.#conductor].map((worker) => worker?.stop());
    this.#helpers = this.#conductor = undefined;
    const lost = this.#queue.splice(0);
    // Only then: whoever hears of it may reuse the tensors.
    if (lost.length)
      void Promise.allSettled(stopped).then(() => {
        for (const { reject } of lost) reject(error);
      });
  }

  #start(slot: number, message: (value: number) => void, failed: (reason: string) => void): WorkerHandle {
    return this.#host.startWorker({ module: this.#module, memory: this.#memory, slot }, { message, failed });
  }
}
