/** A job in wasm memory: what the kernel of one call is given, as assembly/lib/run.ts reads it. */
import { type Fault, HotsetError } from "@hotset/core/backend";
import type { Arena } from "./arena.js";
import { words } from "./host.js";
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

/** A kernel as this build knows it. */
export interface KernelCode {
  readonly op: number;
  readonly paramsBytes: number;
  readonly scratchBytes: number;
}

/** Bytes of a job with its plan (assembly/lib/run.ts), and of one slot's status (assembly/lib/kernel.ts). */
const jobBytes = 32;
const planBytes = 32 + 512;
const statusBytes = 24;
const staleWord = 6;
const codes = { 1: "index" } as Readonly<Record<number, Fault["code"]>>;

/** Rounded up to 64-byte lines. */
export const lines = (bytes: number): number => Math.ceil(bytes / 64) * 64;

const statusesAt = lines(jobBytes + planBytes);
const paramsAt = (threads: number): number => statusesAt + lines(statusBytes * threads);
const scratchAt = (threads: number, { paramsBytes }: KernelCode): number => paramsAt(threads) + lines(paramsBytes);

/** All that a job takes: itself, plan, statuses, params and scratch. */
export const bytesOfJob = (threads: number, code: KernelCode): number => scratchAt(threads, code) + code.scratchBytes;

export class Job {
  readonly address: number;
  readonly params: Uint8Array;
  readonly #words: Int32Array;
  readonly #code: KernelCode;
  readonly #threads: number;

  /** `address`: of as many bytes as `bytesOfJob` says, on a 64-byte line. */
  constructor({ arena }: Runner, threads: number, code: KernelCode, address: number) {
    const { buffer } = arena.memory;
    this.address = address;
    this.#code = code;
    this.#threads = threads;
    this.params = new Uint8Array(buffer, address + paramsAt(threads), code.paramsBytes);
    this.#words = new Int32Array(buffer, address, jobBytes / 4);
    this.write();
  }

  /** Writes its head, and has it planned anew. */
  write(): void {
    const words = this.#words;
    const { address } = this;
    words[0] = this.#code.op;
    words[1] = address + paramsAt(this.#threads);
    words[2] = address + scratchAt(this.#threads, this.#code);
    words[3] = this.#code.scratchBytes;
    words[4] = this.#threads;
    words[5] = address + statusesAt;
    words[staleWord] = 1;
  }

  /** A size or scalar has changed since the plan was made. */
  change(): void {
    this.#words[staleWord] = 1;
  }
}

/**
 * Runs a job on this thread, with the helpers where they are free; 0, or the address of the first fault. What
 * WebAssembly throws (at the end of the stack, or a trap) comes as a HotsetError where helpers may still be at work
 * on the job: its memory must then never be used again.
 */
export function runJob({ exports, arena, together }: Runner, job: number): number {
  try {
    return exports.run(job, together);
  } catch (cause) {
    // Not busy: it never came to the pool, or ended there.
    if (together === 0 || Atomics.load(new Int32Array(arena.memory.buffer, 0, 512), words.busy) === 0) throw cause;
    throw new HotsetError("internal", {
      where: "wasm: run",
      expected: "the kernel to finish",
      received: (cause as Error).message,
      hint: "Bind again.",
      cause,
    });
  }
}

/** Reads the fault at an address; `names` are the tensor ports. */
export function faultAt({ arena }: Runner, address: number, names: readonly string[]): Fault {
  const status = new DataView(arena.memory.buffer, address >>> 0, statusBytes);
  return {
    code: codes[status.getUint32(0, true)] ?? "internal",
    port: names[status.getUint32(4, true)] ?? "?",
    index: status.getFloat64(8, true),
    value: status.getFloat64(16, true),
  };
}
