/** What differs between Node and pages: where the bytes come from, and how workers are made. */
import type { Build } from "./builds.js";

export type BuildFile = Build | `${Build}-threads`;

export interface Host {
  /** The bytes of a build. Throws BackendLoadError. */
  load(file: BuildFile): Promise<Uint8Array<ArrayBuffer>>;
  /** Threads to use, the caller's included. Throws HotsetError. */
  threads(wanted: number | undefined): number;
  /** Whether this thread may sleep until workers are done: not a page's main thread. */
  readonly mayBlock: boolean;
  /** Whether workers start while this thread is busy, so that they can wait until they are needed. */
  readonly startsAside: boolean;
  /** Why there can be no workers, if that is known beforehand. */
  readonly noWorkers: string | undefined;
  /** Starts a worker, which does not keep the process alive. May throw. */
  startWorker(task: WorkerTask, events: WorkerEvents): WorkerHandle;
}

/** What a worker gets: it instantiates the module in the memory and stays at work in it. */
export interface WorkerTask {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** 1 and up: a helper; 0: the conductor, which runs what is asked for from start to end. */
  readonly slot: number;
}

export interface WorkerEvents {
  /** From a helper once, when it has started; from the conductor for each job: the first fault's address, or 0. */
  message(value: number): void;
  failed(reason: string): void;
}

export interface WorkerHandle {
  /** Keeps the process alive, or no longer. */
  hold(pending: boolean): void;
  /** Ends it; resolves when it no longer runs, where the host can tell. */
  stop(): Promise<unknown>;
}

// Words in the memory: see assembly/lib/pool.ts.
export const words = { done: 1088 / 4, busy: 1280 / 4, up: 1344 / 4, broken: 1348 / 4, request: 1408 / 4 } as const;

/**
 * The whole of a worker's program: `work(task, post)`. A trap is a defect; it must not leave the caller asleep.
 * After -1 nothing more comes.
 */
export const workerProgram = `const work = ({ module, memory, slot }, post) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  try {
    if (slot > 0) {
      post(0);
      exports.pool_work(slot);
    } else for (;;) post(exports.pool_conduct() >>> 0);
  } catch (error) {
    const words = new Int32Array(memory.buffer, 0, 512);
    Atomics.store(words, ${words.broken}, 1);
    // Another number, so that who is about to sleep on it does not.
    Atomics.add(words, ${words.done}, ${1 << 30});
    Atomics.notify(words, ${words.done});
    post(-1);
    throw error;
  }
};`;
