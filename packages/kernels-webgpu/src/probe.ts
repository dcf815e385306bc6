/** What this device reaches: for calibration. */
import { HotsetError, measureUploads, type Probe } from "@hotset/core/backend";
import type { WebgpuDevice } from "./device.js";
import { roundUp } from "./flags.js";
import type { Pass } from "./program.js";
import { deviceTime } from "./time.js";

const threads = 128;
const pass = (entry: string): Pass => ({
  pieces: ["lib/probe"],
  flags: [],
  entry,
  constants: { workgroup_threads: threads },
  bindings: {},
});
const readAll = pass("read_all");
const multiplyAdd = pass("multiply_add");
/** Of multiply_add, a thread. */
const operations = 16384;

/** GB/s of reading device memory or of copying from the host; 10^9 operations a second. */
export async function measure(owner: WebgpuDevice, probe: Probe): Promise<number> {
  if (probe.kind === "copy") {
    const memory = owner.alloc(probe.bytes);
    return measureUploads(memory, () => owner.wait([memory.check], []));
  }
  if (probe.kind === "madd-i8")
    throw new HotsetError("unsupported", { where: "webgpu: probe", expected: "read, madd or copy", received: probe.kind });
  const reads = probe.kind === "read";
  const bytes = reads ? roundUp(Math.min(probe.bytes, owner.facts.maxStorageBufferBindingSize), 256) : 256;
  const groups = reads ? Math.min(4096, Math.ceil(bytes / 16 / threads)) : 4096;
  const kernel = reads ? readAll : multiplyAdd;
  const [source, sums] = [owner.alloc(bytes), owner.alloc(groups * threads * 4)];
  try {
    await owner.pipelines.prepare(kernel);
    const pipeline = owner.pipelines.get(kernel);
    const group = owner.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [source, sums].map((memory, binding) => ({ binding, resource: memory.range() })),
    });
    // Repeats in one pass, so that a short kernel is not lost in the launch.
    const repeats = reads ? Math.max(1, Math.min(64, Math.floor((256 << 20) / bytes))) : 1;
    const us = await median(owner, (recorder) => {
      recorder.setPipeline(pipeline);
      recorder.setBindGroup(0, group);
      for (let i = 0; i < repeats; i++) recorder.dispatchWorkgroups(groups);
    });
    return (reads ? bytes * repeats : operations * groups * threads) / us / 1e3;
  } finally {
    source.release();
    sums.release();
  }
}

/** Microseconds: by the device's clock, else by the host's around a wait. */
async function median(owner: WebgpuDevice, record: (pass: GPUComputePassEncoder) => void): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    const us = await deviceTime(owner, record);
    if (us === undefined) {
      const encoder = owner.device.createCommandEncoder();
      const recorder = encoder.beginComputePass();
      record(recorder);
      recorder.end();
      owner.device.queue.submit([encoder.finish()]);
      await owner.wait([], []);
    }
    times.push(us ?? (performance.now() - start) * 1e3);
  }
  times.sort((a, b) => a - b);
  return times[2] as number;
}
