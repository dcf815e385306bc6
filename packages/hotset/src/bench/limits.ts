/** The limits of this machine, measured through each backend's own code in the same run. */
import type { Backend } from "@hotset/core";
import { isDevice } from "@hotset/core/backend";

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

export async function measureLimits(backends: readonly Backend[]): Promise<Limits> {
  const limits: Record<string, Limit> = {};
  for (const backend of backends) {
    const small = backend.id === "js" || isDevice(backend);
    limits[backend.id] = {
      readGBs: await backend.probe({ kind: "read", bytes: small ? readBytes / 4 : readBytes }),
      gflops: await backend.probe({ kind: "madd" }),
      gops: small ? Number.NaN : await backend.probe({ kind: "madd-i8" }),
    };
  }
  return limits;
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
