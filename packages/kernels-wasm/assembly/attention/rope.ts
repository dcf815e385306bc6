// attention/rope: turns pairs of components by position * frequency_i.
//
// The sines and cosines of a token are computed once, in f64, for all its heads, and rounded to f32; interleaved pairs
// meet them doubled, with the sines' signs in turn. Rotations are in f32. A task is 32 KiB of heads; with few heads the
// sines bound it.
import { ATTENTION_ROPE_PAIRS_HALF, AttentionRopeParams } from "../gen/params";
import { math } from "../lib/exp";
import { wide } from "../lib/f64";
import { align_line, KernelPlan, Status } from "../lib/kernel";
import { simd } from "../lib/simd";

const TASK_FLOATS: u32 = 8 << 10;

export function attention_rope_plan(params: AttentionRopeParams, slots: u32, out: KernelPlan): void {
  const each = task_tokens(params);
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  out.tasks0 = <u32>((<u64>params.tokens + each - 1) / each);
  out.scratch_bytes = <f64>slots * <f64>slot_bytes(params);
}

export function attention_rope_task(
  params: AttentionRopeParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_tokens(params);
  const end = min(params.tokens, (task + 1) * each);
  const pairs = params.rotary_pairs;
  const half = params.pairs == ATTENTION_ROPE_PAIRS_HALF;
  const frequencies = scratch + slot * <usize>slot_bytes(params);
  const cosines = frequencies + pairs * 8;
  // As many as the components that meet them.
  const sines = cosines + (half ? pairs * 4 : pairs * 8);
  for (let i: u32 = 0; i < pairs; i++)
    store<f64>(
      frequencies + i * 8,
      params.frequencies ? <f64>load<f32>(params.frequencies + i * 4) : wide.exp((-(<f64>i) / <f64>pairs) * math.ln(params.theta)),
    );
  for (let token = task * each; token < end; token++) {
    const position = <f64>load<i32>(params.positions + token * 4);
    for (let i: u32 = 0; i < pairs; i++) {
      const angle = position * load<f64>(frequencies + i * 8);
      const cosine = <f32>wide.sine(angle, 1);
      const sine = <f32>wide.sine(angle, 0);
      if (half) {
        store<f32>(cosines + i * 4, cosine);
        store<f32>(sines + i * 4, sine);
      } else {
        store<f32>(cosines + i * 8, cosine);
        store<f32>(cosines + i * 8, cosine, 4);
        store<f32>(sines + i * 8, -sine);
        store<f32>(sines + i * 8, sine, 4);
      }
    }
    const bytes: usize = params.head_dim * 4;
    const turned: usize = pairs * 8;
    let x = params.x + token * params.heads * bytes;
    let out = params.out + token * params.heads * bytes;
    for (let h: u32 = 0; h < params.heads; h++, x += bytes, out += bytes) {
      if (half) turn_halves(x, cosines, sines, out, pairs * 4);
      else turn_interleaved(x, cosines, sines, out, turned);
      memory.copy(out + turned, x + turned, bytes - turned);
    }
  }
}

function task_tokens(params: AttentionRopeParams): u32 {
  return max<u32>(1, TASK_FLOATS / (params.heads * params.head_dim));
}
/** Frequencies in f64; cosines and sines in f32, doubled. */
function slot_bytes(params: AttentionRopeParams): u64 {
  return align_line(<u64>params.rotary_pairs * 24);
}

function turn_interleaved(x: usize, cosines: usize, sines: usize, out: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    const pairs = v128.load(x + i);
    const swapped = v128.shuffle<i32>(pairs, pairs, 1, 0, 3, 2);
    v128.store(out + i, f32x4.add(f32x4.mul(pairs, v128.load(cosines + i)), f32x4.mul(swapped, v128.load(sines + i))));
  }
  for (; i < bytes; i += 8) {
    const a = load<f32>(x + i);
    const b = load<f32>(x + i, 4);
    const cosine = load<f32>(cosines + i);
    const sine = load<f32>(sines + i, 4);
    store<f32>(out + i, a * cosine - b * sine);
    store<f32>(out + i, a * sine + b * cosine, 4);
  }
}

function turn_halves(x: usize, cosines: usize, sines: usize, out: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    const a = v128.load(x + i);
    const b = v128.load(x + bytes + i);
    const cosine = v128.load(cosines + i);
    const sine = v128.load(sines + i);
    v128.store(out + i, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)));
    v128.store(out + bytes + i, simd.madd(a, sine, f32x4.mul(b, cosine)));
  }
  for (; i < bytes; i += 4) {
    const a = load<f32>(x + i);
    const b = load<f32>(x + bytes + i);
    const cosine = load<f32>(cosines + i);
    const sine = load<f32>(sines + i);
    store<f32>(out + i, a * cosine - b * sine);
    store<f32>(out + bytes + i, a * sine + b * cosine);
  }
}
