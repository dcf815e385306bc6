/** ONNX's operators written out in f64, straight from their specifications: what the command is tested against. */
import { f16ToNumber, toF16 } from "@hotset/core";
import type { MadeTensor } from "./onnx-files.js";

export interface PlainAttention {
  /** [batch, heads, tokens, components] each. */
  readonly q: MadeTensor;
  readonly k: MadeTensor;
  readonly v: MadeTensor;
  readonly mask?: MadeTensor | undefined;
  readonly pastKey?: MadeTensor | undefined;
  readonly pastValue?: MadeTensor | undefined;
  readonly valid?: readonly number[];
  readonly causal?: boolean;
  readonly scale?: number;
  readonly softcap?: number;
  readonly mode?: 0 | 1 | 2 | 3;
}

/** Y, present_key, present_value and qk_matmul_output, each as a flat list, of 4 axes. */
export function plainAttention({ q, k, v, mask, pastKey, pastValue, valid, causal = false, scale, softcap = 0, mode = 0 }: PlainAttention) {
  const [batch, heads, rows, width] = q.shape as [number, number, number, number];
  const [, kvHeads, fresh] = k.shape as [number, number, number];
  const valueWidth = v.shape[3] as number;
  const before = pastKey?.shape[2] ?? 0;
  const total = before + fresh;
  const at = ({ values, shape }: MadeTensor, ...place: number[]): number =>
    values[place.reduce((sum, one, axis) => sum * (shape[axis] as number) + one, 0)] as number;
  const keyAt = (b: number, h: number, t: number, i: number): number =>
    t < before ? at(pastKey as MadeTensor, b, h, t, i) : at(k, b, h, t - before, i);
  const valueAt = (b: number, h: number, t: number, i: number): number =>
    t < before ? at(pastValue as MadeTensor, b, h, t, i) : at(v, b, h, t - before, i);
  const added = (b: number, h: number, row: number, t: number): number => {
    if (!mask) return 0;
    const { shape, type } = mask;
    if (t >= (shape.at(-1) as number)) return Number.NEGATIVE_INFINITY;
    const place = [b, h, row, t].slice(4 - shape.length).map((one, axis) => (shape[axis] === 1 && axis < shape.length - 1 ? 0 : one));
    const found = at(mask, ...place);
    return type === "bool" ? (found ? 0 : Number.NEGATIVE_INFINITY) : found;
  };
  const present = (of: (b: number, h: number, t: number, i: number) => number, size: number): number[] =>
    range(batch).flatMap((b) => range(kvHeads).flatMap((h) => range(total).flatMap((t) => range(size).map((i) => of(b, h, t, i)))));

  const [out, matmul]: [number[], number[]] = [[], []];
  for (const b of range(batch))
    for (const h of range(heads))
      for (const row of range(rows)) {
        const kv = Math.floor(h / (heads / kvHeads));
        const offset = before > 0 || !valid ? before : (valid[b] as number) - rows;
        const stages = range(total).map((t) => {
          const raw = (scale ?? 1 / Math.sqrt(width)) * range(width).reduce((sum, i) => sum + at(q, b, h, row, i) * keyAt(b, kv, t, i), 0);
          const capped = softcap > 0 ? softcap * Math.tanh(raw / softcap) : raw;
          const hidden = (causal && t > row + offset) || (valid !== undefined && t >= (valid[b] as number));
          return [raw, capped, hidden ? Number.NEGATIVE_INFINITY : capped + added(b, h, row, t)] as const;
        });
        const largest = Math.max(...stages.map(([, , logit]) => logit));
        const weights = stages.map(([, , logit]) => (largest === Number.NEGATIVE_INFINITY ? 0 : Math.exp(logit - largest)));
        const sum = weights.reduce((a, one) => a + one, 0) || 1;
        for (const d of range(valueWidth))
          out.push(weights.reduce((a, one, t) => a + (one / sum) * (one === 0 ? 0 : valueAt(b, kv, t, d)), 0));
        matmul.push(...stages.map((stage, t) => (mode === 3 ? (weights[t] as number) / sum : (stage[mode] as number))));
      }
  return {
    out,
    matmul,
    presentKey: present(keyAt, width),
    presentValue: present(valueAt, valueWidth),
    shape: [batch, heads, rows, valueWidth],
    total,
  };
}

/** RotaryEmbedding of [batch, heads, tokens, components]; `row` is the caches' row of a token. */
export function plainRotary(
  x: MadeTensor,
  cos: MadeTensor,
  sin: MadeTensor,
  row: (b: number, t: number) => number,
  interleaved: boolean,
): number[] {
  const [batch, heads, tokens, width] = x.shape as [number, number, number, number];
  const half = cos.shape.at(-1) as number;
  return range(batch).flatMap((b) =>
    range(heads).flatMap((h) =>
      range(tokens).flatMap((t) => {
        const head = x.values.slice(((b * heads + h) * tokens + t) * width).slice(0, width);
        const out = head.slice();
        for (const i of range(half)) {
          const [c, s] = [cos.values[row(b, t) * half + i] as number, sin.values[row(b, t) * half + i] as number];
          const [first, second] = interleaved ? [2 * i, 2 * i + 1] : [i, i + half];
          out[first] = (head[first] as number) * c - (head[second] as number) * s;
          out[second] = (head[first] as number) * s + (head[second] as number) * c;
        }
        return out;
      }),
    ),
  );
}

export function plainSoftmax(row: readonly number[]): number[] {
  const largest = Math.max(...row);
  const weights = row.map((one) => Math.exp(one - largest));
  const sum = weights.reduce((a, one) => a + one, 0);
  return weights.map((one) => one / sum);
}

/** As a tensor of this type holds them. */
export const rounded = (type: MadeTensor["type"], values: readonly number[]): number[] =>
  type === "float16" ? Array.from(toF16(values), f16ToNumber) : type === "float32" ? values.map(Math.fround) : [...values];

export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** [batch, heads, tokens, width] as [batch, tokens, heads * width]. */
export function flat(tensor: MadeTensor): MadeTensor {
  const [batch, heads, tokens, width] = tensor.shape as [number, number, number, number];
  const values = range(batch).flatMap((b) =>
    range(tokens).flatMap((t) =>
      range(heads).flatMap((h) => range(width).map((i) => tensor.values[((b * heads + h) * tokens + t) * width + i] as number)),
    ),
  );
  return { ...tensor, shape: [batch, tokens, heads * width], values };
}
