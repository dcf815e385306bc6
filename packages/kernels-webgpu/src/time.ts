/** Time on the device's own clock, where it has one. */
import type { WebgpuDevice } from "./device.js";
import { mapModeRead, usage } from "./flags.js";

/** Microseconds of one compute pass; undefined without timestamps. */
export async function deviceTime(owner: WebgpuDevice, record: (pass: GPUComputePassEncoder) => void): Promise<number | undefined> {
  if (!owner.facts.features.has("timestamp-query")) return undefined;
  const { device } = owner;
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 });
  const resolved = owner.pool.take(256, usage.queryResolve | usage.copySource);
  const staging = owner.pool.take(256, usage.mapRead | usage.copyTarget);
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } });
  record(pass);
  pass.end();
  encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16);
  device.queue.submit([encoder.finish()]);
  try {
    await staging.mapAsync(mapModeRead, 0, 16);
  } catch (cause) {
    owner.live("webgpu: time");
    throw cause;
  } finally {
    querySet.destroy();
  }
  const [start, end] = new BigUint64Array(staging.getMappedRange(0, 16)) as unknown as [bigint, bigint];
  const us = Number(end - start) / 1e3;
  staging.unmap();
  owner.pool.give(staging);
  owner.pool.give(resolved);
  return us;
}
