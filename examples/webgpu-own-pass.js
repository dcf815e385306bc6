// A runtime that has a GPUDevice, its cache in GPUBuffers and a compute pass of its own: it appends the newest token, and
// Hotset records attention over the cache behind that, into the same pass. Nothing is copied, nothing waits in between.
import { webgpu } from "@hotset/kernels-webgpu";
import { attention, createHotset } from "hotset";

export const axes = { batch: 1, queryHeads: 4, kvHeads: 2, headDim: 64, valueDim: 64, pages: 4, pageSize: 16, maxPages: 3 };
/** Token 39 of the sequence, the newest, lies in page 2 at place 7. */
export const pageTable = Int32Array.of(3, 0, 2);
const length = 40;
const append = `
  @group(0) @binding(0) var<storage, read> token: array<f32>;
  @group(0) @binding(1) var<storage, read_write> keys: array<f32>;
  @group(0) @binding(2) var<storage, read_write> values: array<f32>;
  @compute @workgroup_size(64) fn main(@builtin(workgroup_id) head: vec3u, @builtin(local_invocation_index) i: u32) {
    let slot = (2 * 2 + head.x) * 16 + 7;
    keys[slot * 64 + i] = token[head.x * 64 + i];
    values[slot * 64 + i] = token[128 + head.x * 64 + i];
  }`;

/** @param {GPUDevice} device @returns {Promise<Float32Array>} what the 4 heads attend to, [4, 64] */
export async function attendInOwnPass(device, { queries, keyPages, valuePages, token }) {
  const make = (data, more = 0) => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | more });
    device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  };
  const [q, k, v, t] = [queries, keyPages, valuePages, token].map((data) => make(data));
  const [table, lengths] = [make(pageTable), make(Int32Array.of(length))];
  const [out, lse] = [make(new Float32Array(4 * 64), GPUBufferUsage.COPY_SRC), make(new Float32Array(4))];
  const module = device.createShaderModule({ code: append });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const entries = [t, k, v].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });

  const hotset = await createHotset({ backends: [await webgpu({ device })] });
  const plan = await hotset.plan(attention.decode, axes, { keyPages: "f32" }, { backend: "webgpu" });
  const f32 = (data) => ({ data, dtype: "f32" });
  const i32 = (data) => ({ data, dtype: "i32" });
  const step = plan.bind(
    { queries: f32(q), keyPages: f32(k), valuePages: f32(v), pageTable: i32(table), lengths: i32(lengths) },
    { out: f32(out), lse: f32(lse) },
  );

  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(2);
  step.encode(pass);
  pass.end();
  const staging = device.createBuffer({ size: out.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  encoder.copyBufferToBuffer(out, 0, staging, 0, out.size);
  device.queue.submit([encoder.finish()]);
  await step.done(); // Throws where a page of the table or a length was bad.
  await staging.mapAsync(GPUMapMode.READ);
  return new Float32Array(staging.getMappedRange().slice());
}
