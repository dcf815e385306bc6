import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { describe, HotsetError } from "../errors.js";

/** The threads this process may use: its processor affinity, limited by the CPU quota of its control group. */
export function availableThreads(): number {
  const quota = cpuQuota();
  return Math.max(1, Math.min(availableParallelism(), quota === undefined ? Number.POSITIVE_INFINITY : Math.ceil(quota)));
}

/** `wanted`, else HOTSET_THREADS, else what the process may use. Throws HotsetError for anything but 1 to 256. */
export function threadSetting(wanted?: number): number {
  const value = wanted ?? process.env.HOTSET_THREADS;
  if (value === undefined || value === "") return availableThreads();
  const threads = Number(value);
  if (!Number.isInteger(threads) || threads < 1 || threads > 256)
    throw new HotsetError("argument", {
      where: wanted === undefined ? "HOTSET_THREADS" : "threads",
      expected: "a whole number from 1 to 256",
      received: describe(value),
    });
  return threads;
}

/** CPUs that the control group grants, from cgroup v2 or v1; undefined without a limit. */
function cpuQuota(): number | undefined {
  if (process.platform !== "linux") return undefined;
  const [quota, period] = (readText("/sys/fs/cgroup/cpu.max") ?? readText(`/sys/fs/cgroup${ownGroup()}/cpu.max`) ?? v1Quota() ?? "max 1")
    .split(" ")
    .map(Number);
  return quota && period && quota > 0 ? quota / period : undefined;
}

function v1Quota(): string | undefined {
  const quota = readText("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  const period = readText("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  return quota && period ? `${quota} ${period}` : undefined;
}

const ownGroup = (): string => readText("/proc/self/cgroup")?.match(/^0::(.*)$/m)?.[1] ?? "";

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}
