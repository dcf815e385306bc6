/** What is known of this machine's speed, and the time an op should take on it. */
import type { Backend } from "./backend.js";
import type { Cost } from "./op/define.js";

/** How fast one backend is here. Written by `hotset calibrate`, else the defaults below. */
export interface BackendConstants {
  /** Microseconds of a bound run on no work. */
  launchUs: number;
  /** Read bandwidth, GB/s, of working sets of so many bytes; ascending. */
  readGBs: readonly (readonly [bytes: number, gbPerS: number])[];
  /** 10^9 additions and multiplications a second, f32. */
  gflops: number;
  /** GB/s of copying what does not lie in this backend's memory. */
  copyGBs: number;
  /** Devices: microseconds from the end of a run to its result on the host, whatever its size. */
  readbackUs?: number;
  /** Share of the two limits that an op was measured to reach; missing ops use the defaults. */
  ops: Readonly<Record<string, OpShares>>;
}

export interface OpShares {
  readonly bandwidth: number;
  readonly compute: number;
}

/** Constants by backend id, such as `native`. */
export type MachineConstants = Readonly<Record<string, BackendConstants>>;

const defaultShares: OpShares = { bandwidth: 0.8, compute: 0.6 };

/** Rough figures of a laptop core, times the threads where the memory bus allows: good enough to order the backends. */
export function defaultConstants(backend: Pick<Backend, "id" | "threads">): BackendConstants {
  const threads = backend.threads;
  const perCore = {
    native: { read: 12, gflops: 50, launch: 0.3 },
    wasm: { read: 8, gflops: 12, launch: 0.3 },
    js: { read: 2, gflops: 1.2, launch: 0.2 },
    cuda: { read: 600, gflops: 8000, launch: 8 },
    webgpu: { read: 100, gflops: 1000, launch: 40 },
  }[backend.id];
  const device = backend.id === "cuda" || backend.id === "webgpu";
  const parallel = device ? 1 : threads;
  return {
    launchUs: perCore.launch + (parallel > 1 ? 2 : 0),
    readGBs: device
      ? [[1, perCore.read]]
      : [
          [256 << 10, perCore.read * 4 * parallel],
          [8 << 20, perCore.read * 2 * parallel],
          [256 << 20, perCore.read * Math.min(parallel, 4)],
        ],
    gflops: perCore.gflops * parallel,
    copyGBs: device ? 8 : 6,
    ...(device ? { readbackUs: backend.id === "cuda" ? 15 : 300 } : {}),
    ops: {},
  };
}

/** Bandwidth at a working set, log-linear between the measured points. */
export function bandwidthAt(points: BackendConstants["readGBs"], bytes: number): number {
  const first = points[0];
  if (!first) return 1;
  let [lastBytes, lastRate] = first;
  if (bytes <= lastBytes) return lastRate;
  for (const [pointBytes, rate] of points.slice(1)) {
    if (bytes <= pointBytes) {
      const share = Math.log(bytes / lastBytes) / Math.log(pointBytes / lastBytes);
      return lastRate + share * (rate - lastRate);
    }
    [lastBytes, lastRate] = [pointBytes, rate];
  }
  return lastRate;
}

/** Bytes that a run copies. */
export interface Transfer {
  /** Into the backend's memory before it. */
  readonly upload: number;
  /** Out of it afterwards. */
  readonly download: number;
  /** Between the host and another device, in whose memory they lie. */
  readonly foreign: number;
}

export interface Prediction {
  readonly us: number;
  readonly launchUs: number;
  readonly transferUs: number;
  /** Waiting for outputs on the host, and bringing them there: devices only. */
  readonly readbackUs: number;
  readonly memoryUs: number;
  readonly computeUs: number;
}

/** Launch + transfer of what is not resident + the slower of memory and arithmetic + readback. */
export function predict(constants: BackendConstants, opId: string, cost: Cost, { upload, download, foreign }: Transfer): Prediction {
  const shares = constants.ops[opId] ?? defaultShares;
  const memoryUs = cost.bytes / (bandwidthAt(constants.readGBs, cost.bytes) * shares.bandwidth * 1e3);
  const computeUs = cost.flops / (constants.gflops * shares.compute * 1e3);
  const us = (bytes: number): number => bytes / (constants.copyGBs * 1e3);
  const waits = constants.readbackUs !== undefined && download > 0;
  const readbackUs = waits ? (constants.readbackUs as number) + us(download) : 0;
  const transferUs = us(upload + foreign + (constants.readbackUs === undefined ? download : 0));
  const { launchUs } = constants;
  return { us: launchUs + transferUs + Math.max(memoryUs, computeUs) + readbackUs, launchUs, transferUs, readbackUs, memoryUs, computeUs };
}
