/** Speed limits as a build reaches them: what shares of the limit are stated against. */
import type { Probe } from "@hotset/core/backend";
import { bytesOfJob, Job, type KernelCode, type Runner, runJob } from "./job.js";

// As assembly/lib/probe.ts.
const kinds = { read: 0, madd: 1, "madd-i8": 2 } as const;
const stepOperations = { madd: 80, "madd-i8": 160 } as const;
const paramsBytes = 20;

/** GB/s of `read` and `copy`, 10^9 operations a second of the others. Throws HotsetError without memory. */
export function measure(runner: Runner, opNumber: number, probe: Probe): number {
  if (probe.kind === "copy") return measureCopy(runner, probe.bytes);
  const { arena, threads, together } = runner;
  const used = together ? threads : 1;
  const part = probe.kind === "read" ? Math.max(16 << 10, Math.floor(probe.bytes / used / 512) * 512) : 512;
  const code: KernelCode = { op: opNumber, paramsBytes, scratchBytes: 0 };
  const held: number[] = [];
  const hold = (bytes: number): number => {
    const start = arena.alloc(bytes, false);
    held.push(start);
    return start;
  };
  try {
    const data = hold(part * used);
    const results = hold(4 * used);
    const job = new Job(runner, used, code, hold(bytesOfJob(used, code)));
    // Written, so that it is memory and not the one page of zeros; as floats and as 16-bit integers ordinary numbers.
    new Uint8Array(arena.memory.buffer, data, part * used).fill(0x3c);
    const fields = new Uint32Array(job.params.buffer, job.params.byteOffset, paramsBytes / 4);
    if (together) runner.workers?.waitForHelpers();
    return rate(probe.kind === "read" ? part * used : stepOperations[probe.kind] * used, (repeats) => {
      fields.set([kinds[probe.kind], part, repeats, data, results]);
      job.change();
      runJob(runner, job.address);
    });
  } finally {
    for (const start of held) arena.free(start);
  }
}

/** From an array of the host into wasm memory. */
function measureCopy({ arena }: Runner, bytes: number): number {
  const size = Math.max(4096, bytes);
  const address = arena.alloc(size, false);
  try {
    const inside = new Uint8Array(arena.memory.buffer, address, size);
    const outside = new Uint8Array(size).fill(1);
    return rate(size, (repeats) => {
      for (let i = 0; i < repeats; i++) inside.set(outside);
    });
  } finally {
    arena.free(address);
  }
}

/** Median rate of a few passes, each long enough for a coarse clock and past the engine's first, slow code. */
function rate(amount: number, pass: (repeats: number) => void): number {
  const time = (repeats: number): number => {
    const start = performance.now();
    pass(repeats);
    return Math.max(performance.now() - start, 1e-3);
  };
  let repeats = 1;
  for (let last = time(1); last < 4 && repeats < 1e8; last = time(repeats)) repeats = Math.ceil(repeats * Math.min(100, 6 / last));
  const times = Array.from({ length: 7 }, () => time(repeats)).sort((a, b) => a - b);
  return (amount * repeats) / (times[3] as number) / 1e6;
}
