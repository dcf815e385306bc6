/** What this device reaches: for calibration. */
import { HotsetError, measureUploads, type Probe } from "@hotset/core/backend";
import type { CudaDevice } from "./device.js";
import { CudaMemory } from "./memory.js";

/** GB/s of reading device memory or of copying from the host; 10^9 operations a second. */
export async function measure(device: CudaDevice, probe: Probe): Promise<number> {
  const bytes = "bytes" in probe ? probe.bytes : 16;
  if (!(bytes >= 16)) throw new HotsetError("argument", { where: "cuda: probe", expected: "16 bytes or more", received: `${bytes}` });
  const { addon, queue } = device;
  const data = CudaMemory.alloc(device, bytes);
  if (probe.kind === "copy") return measureUploads(data, () => device.wait("cuda: probe", undefined, new BigUint64Array(), []));
  try {
    const sums = CudaMemory.alloc(device, addon.probeSums * 4);
    try {
      const rates: number[] = [];
      for (let i = 0; i < 7; i++) {
        const { amount, us } = device.attempt("cuda: probe", () => addon.probe(queue, probe.kind, data.pointer, bytes, sums.pointer));
        rates.push(amount / (await device.promised("cuda: probe", () => us)) / 1e3);
      }
      // The first run is warmer than none.
      rates.shift();
      rates.sort((a, b) => a - b);
      return rates[rates.length >> 1] as number;
    } finally {
      sums.release();
    }
  } finally {
    data.release();
  }
}
