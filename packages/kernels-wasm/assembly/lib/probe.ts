// Speed limits as these builds reach them: what shares of the limit are stated against. Shaped as an op, so that
// it runs on the pool like one: each slot repeats its own part.
import { KernelPlan, Status } from "./kernel";
import { simd } from "./simd";

export const PROBE_READ: u32 = 0;
export const PROBE_MADD: u32 = 1;
export const PROBE_MADD_I8: u32 = 2;

/** As src/probe.ts writes it. */
@unmanaged
export class ProbeParams {
  kind: u32;
  /** Bytes from `data` on that each slot reads, a multiple of 512; the next slot's follow. At least 512. */
  part: u32;
  /** Passes over the part, or steps of MADD_STEP operations. */
  repeats: u32;
  data: usize;
  /** One f32 for each slot, so that no work is dropped. */
  results: usize;
}

export function probe_plan(params: ProbeParams, slots: u32, out: KernelPlan): void {
  out.kernel = 0;
  out.phases = 1;
  out.tasks0 = slots;
  out.scratch_bytes = 0;
}

export function probe_task(params: ProbeParams, scratch: usize, phase: u32, task: u32, slot: u32, slots: u32, status: Status): void {
  const data = params.data + task * params.part;
  let result: f32 = 0;
  if (params.kind == PROBE_MADD) result = probe_madd<f32>(data, params.repeats);
  else if (params.kind == PROBE_MADD_I8) result = probe_madd<i8>(data, params.repeats);
  else for (let i: u32 = 0; i < params.repeats; i++) result += probe_read(data, params.part);
  store<f32>(params.results + task * 4, result);
}

/** At eight places side by side: processors fetch ahead along each, and too few lines along one. */
function probe_read(data: usize, bytes: u32): f32 {
  const run = bytes >> 3;
  const far = data + 4 * run;
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  for (let i: usize = 0; i < run; i += 64) {
    a = f32x4.add(a, line_sum(data + i));
    b = f32x4.add(b, line_sum(data + run + i));
    c = f32x4.add(c, line_sum(data + 2 * run + i));
    d = f32x4.add(d, line_sum(data + 3 * run + i));
    a = f32x4.add(a, line_sum(far + i));
    b = f32x4.add(b, line_sum(far + run + i));
    c = f32x4.add(c, line_sum(far + 2 * run + i));
    d = f32x4.add(d, line_sum(far + 3 * run + i));
  }
  return f32x4.extract_lane(simd.sum4(a, b, c, d), 0);
}

function line_sum(line: usize): v128 {
  return f32x4.add(f32x4.add(v128.load(line), v128.load(line, 16)), f32x4.add(v128.load(line, 32), v128.load(line, 48)));
}

/** Operations of a step: sums x lanes x products and sums. Of i8 rows twice as many. */
export const MADD_STEP: u32 = 10 * 4 * 2;

/** A tile of sums in registers, 2 vectors x 5 factors, from the first 128 bytes at `data`. */
function probe_madd<T>(data: usize, steps: u32): f32 {
  let a = i64x2.splat(0);
  let b = a;
  let c = a;
  let d = a;
  let e = a;
  let f = a;
  let g = a;
  let h = a;
  let i = a;
  let j = a;
  for (; steps > 0; steps--) {
    // Another place each step, so that nothing is hoisted.
    const at = data + ((steps & 1) << 6);
    const x = v128.load(at);
    const y = v128.load(at, 16);
    let factor = v128.load32_splat(at, 32);
    a = simd.madd_terms<T>(x, factor, a);
    b = simd.madd_terms<T>(y, factor, b);
    factor = v128.load32_splat(at, 36);
    c = simd.madd_terms<T>(x, factor, c);
    d = simd.madd_terms<T>(y, factor, d);
    factor = v128.load32_splat(at, 40);
    e = simd.madd_terms<T>(x, factor, e);
    f = simd.madd_terms<T>(y, factor, f);
    factor = v128.load32_splat(at, 44);
    g = simd.madd_terms<T>(x, factor, g);
    h = simd.madd_terms<T>(y, factor, h);
    factor = v128.load32_splat(at, 48);
    i = simd.madd_terms<T>(x, factor, i);
    j = simd.madd_terms<T>(y, factor, j);
  }
  const sums = f32x4.add(simd.sum4_terms<T>(a, b, c, d), simd.sum4_terms<T>(e, f, g, h));
  return f32x4.extract_lane(f32x4.add(sums, f32x4.add(simd.sums<T>(i), simd.sums<T>(j))), 0);
}
