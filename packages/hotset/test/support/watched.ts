/** A device backend that is watched: what it holds, and where a test makes it fail. */
import type { HotsetError } from "@hotset/core";
import type { DeviceBackend, DeviceBatch, DeviceBoundKernel, DeviceKernel } from "@hotset/core/backend";

export interface Watched {
  readonly backend: DeviceBackend;
  /** Bytes of memory and steps that are held now, and runs so far. */
  readonly counts: { bytes: number; steps: number; runs: number };
  /** Asked before each run: what it returns is thrown. */
  fails: () => HotsetError | undefined;
}

export function watched(device: DeviceBackend): Watched {
  const counts = { bytes: 0, steps: 0, runs: 0 };
  const bound = (step: DeviceBoundKernel): DeviceBoundKernel => {
    counts.steps++;
    return {
      submit() {
        counts.runs++;
        const error = watch.fails();
        if (error) throw error;
        step.submit();
      },
      encode: (recorder) => step.encode(recorder),
      finish: (readbacks) => step.finish(readbacks),
      time: () => step.time(),
      set: (name, value) => step.set(name, value),
      release() {
        counts.steps--;
        step.release();
      },
    };
  };
  const watch: Watched = {
    counts,
    fails: () => undefined,
    backend: {
      id: device.id,
      target: device.target,
      name: device.name,
      features: device.features,
      threads: 0,
      device: device.device,
      kernel(request) {
        const kernel = device.kernel(request);
        if (typeof kernel === "string") return kernel;
        const { name, deterministic } = kernel;
        const seen: DeviceKernel = { name, deterministic, prepare: () => kernel.prepare(), bind: (binding) => bound(kernel.bind(binding)) };
        return seen;
      },
      // The device's own object, which it must know again.
      alloc(bytes) {
        const memory = device.alloc(bytes);
        counts.bytes += bytes;
        const release = memory.release.bind(memory);
        let held = true;
        memory.release = () => {
          if (held) counts.bytes -= bytes;
          held = false;
          release();
        };
        return memory;
      },
      ...(device.batch ? { batch: () => (device.batch as () => DeviceBatch).call(device) } : {}),
      adopt: (buffer, offset) => device.adopt(buffer, offset),
      owns: (memory) => device.owns(memory),
      probe: (probe) => device.probe(probe),
      dispose: () => device.dispose(),
    },
  };
  return watch;
}
