/** The limits of this machine, measured through each backend's own code in the same run. */
import type { Backend } from "@hotset/core";

export interface Limit {
  /** Read bandwidth of memory, GB/s. */
  readonly readGBs: number;
  /** Multiply-add, 10^9 operations a second. */
  readonly gflops: number;
  /** The same of 8-bit values widened to 16. */
  readonly gops: number;
}

export type Limits = Readonly<Record<string, Limit>>;

/** Memory well past the last-level cache, as far as a gigabyte goes. */
const readBytes = 2 ** 30;

export function measureLimits(backends: readonly Backend[]): Limits {
  return Object.fromEntries(
    backends.map((backend) => [
      backend.id,
      {
        readGBs: backend.probe({ kind: "read", bytes: backend.id === "js" ? readBytes / 4 : readBytes }),
        gflops: backend.probe({ kind: "madd" }),
        gops: backend.id === "js" ? Number.NaN : backend.probe({ kind: "madd-i8" }),
      },
    ]),
  );
}

/** The time the nearer limit would take over the time taken. */
export function shareOfLimit(
  limits: Limits,
  backend: string,
  bytes: number,
  flops: number,
  us: number,
): { shareOfLimit: number; boundBy: "bandwidth" | "arithmetic" } {
  const limit = limits[backend];
  if (!limit) return { shareOfLimit: Number.NaN, boundBy: "bandwidth" };
  const memoryUs = bytes / (limit.readGBs * 1e3);
  const computeUs = flops / (limit.gflops * 1e3);
  return memoryUs >= computeUs
    ? { shareOfLimit: memoryUs / us, boundBy: "bandwidth" }
    : { shareOfLimit: computeUs / us, boundBy: "arithmetic" };
}
