// Speed limits as these builds reach them: what shares of the limit are stated against. Shaped as an op, so that
// it runs on the pool like one: each slot repeats its own part.
import { KernelPlan, Status } from "./kernel";
import { simd } from "./simd";

export const PROBE_READ: u32 = 0;
export const PROBE_MADD: u32 = 1;
export const PROBE_MADD_I8: u32 = 2;
/** Operations of a step: sums x lanes x 2. */
export const MADD_STEP: u32 = 10 * 4 * 2;
export const MADD_I8_STEP: u32 = 6 * 8 * 2;

/** As src/probe.ts writes it. */
@unmanaged
export class ProbeParams {
  kind: u32;
  /** Bytes from `data` on that each slot reads, a multiple of 256; the next slot's follow. */
  part: u32;
  /** Passes over the part, or steps. */
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
  let result: f32 = 0;
  if (params.kind == PROBE_MADD) result = probe_madd(params.repeats);
  else if (params.kind == PROBE_MADD_I8) result = probe_madd_i8(params.repeats);
  else for (let i: u32 = 0; i < params.repeats; i++) result += probe_read(params.data + task * params.part, params.part);
  store<f32>(params.results + task * 4, result);
}

function probe_read(data: usize, bytes: u32): f32 {
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  for (const end = data + bytes; data < end; data += 64) {
    a = f32x4.add(a, v128.load(data));
    b = f32x4.add(b, v128.load(data, 16));
    c = f32x4.add(c, v128.load(data, 32));
    d = f32x4.add(d, v128.load(data, 48));
  }
  return f32x4.extract_lane(simd.sum4(a, b, c, d), 0);
}

function probe_madd(steps: u32): f32 {
  const factor = f32x4.splat(0.999);
  const term = f32x4.splat(0.001);
  let a = f32x4.splat(0);
  let b = f32x4.splat(1);
  let c = f32x4.splat(2);
  let d = f32x4.splat(3);
  let e = f32x4.splat(4);
  let f = f32x4.splat(5);
  let g = f32x4.splat(6);
  let h = f32x4.splat(7);
  let i = f32x4.splat(8);
  let j = f32x4.splat(9);
  for (; steps > 0; steps--) {
    a = simd.madd(a, factor, term);
    b = simd.madd(b, factor, term);
    c = simd.madd(c, factor, term);
    d = simd.madd(d, factor, term);
    e = simd.madd(e, factor, term);
    f = simd.madd(f, factor, term);
    g = simd.madd(g, factor, term);
    h = simd.madd(h, factor, term);
    i = simd.madd(i, factor, term);
    j = simd.madd(j, factor, term);
  }
  const sums = f32x4.add(simd.sum4(a, b, c, d), simd.sum4(e, f, g, h));
  return f32x4.extract_lane(f32x4.add(sums, f32x4.add(i, j)), 0);
}

function probe_madd_i8(steps: u32): f32 {
  // Another value each step and another factor for each sum, so that no product is shared or hoisted.
  let x = i16x8(0, 1, 2, 3, 4, 5, 6, 7);
  const ones = i16x8.splat(1);
  let a = i32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  let e = a;
  let f = a;
  for (; steps > 0; steps--) {
    x = v128.xor(x, ones);
    a = simd.madd_terms<i8>(x, i16x8.splat(3), a);
    b = simd.madd_terms<i8>(x, i16x8.splat(5), b);
    c = simd.madd_terms<i8>(x, i16x8.splat(7), c);
    d = simd.madd_terms<i8>(x, i16x8.splat(11), d);
    e = simd.madd_terms<i8>(x, i16x8.splat(13), e);
    f = simd.madd_terms<i8>(x, i16x8.splat(17), f);
  }
  return f32x4.extract_lane(simd.sum4_terms<i8>(i32x4.add(a, e), i32x4.add(b, f), c, d), 0);
}
