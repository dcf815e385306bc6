/** What a model asks of a backend, and which backends answer: in order of the predicted time of a token. */

import { decode } from "../attention/decode/spec.js";
import { decodeAnchor } from "../attention/decode-anchor/spec.js";
import { prefill } from "../attention/prefill/spec.js";
import { rope } from "../attention/rope/spec.js";
import { type Backend, isDevice } from "../backend.js";
import { BackendLoadError, describe, HotsetError, UnsupportedError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import { append } from "../kv-cache/append/spec.js";
import { compact } from "../kv-cache/compact/spec.js";
import { sample } from "../logits/sample/spec.js";
import { defaultConstants } from "../machine.js";
import type { AnyAxes, AnyVariant, Op } from "../op/define.js";
import { completeVariant, presentTensors } from "../op/variant.js";
import { time } from "../select.js";
import { appendAxes, pageSize } from "./cache.js";
import type { LoadedModel } from "./config.js";
import { embedding } from "./embedding/spec.js";
import { compactAxes, type EvictionSettings, tokensHeld } from "./eviction.js";
import { attentionAxes } from "./layer-attention.js";
import { linear } from "./linear/spec.js";
import { rmsNorm } from "./rms-norm/spec.js";
import { swiglu } from "./swiglu/spec.js";
import { windowAxes } from "./window-masses.js";

export interface Sizes {
  readonly context: number;
  readonly chunk: number;
  readonly eviction?: EvictionSettings | undefined;
  /** Does it attend in a way of its own? Then whoever made that knows its ops: they are planned before weights are loaded. */
  readonly ownAttention?: boolean;
}

/** An op with sizes and a complete variant, and how many times a generated token goes through it. */
export interface Asked {
  readonly op: Op;
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  readonly times: number;
}

/** Everything that a model runs, with dense attention over a full cache unless it has its own. */
export function opsOf({ config, weights }: LoadedModel, { context, chunk, eviction, ownAttention = false }: Sizes): Asked[] {
  const { dim, heads, kvHeads, headDim, hiddenDim, vocab, rotaryPairs, layers } = config;
  const found = new Map<string, Asked>();
  const ask = (op: Op, axes: AnyAxes, given: AnyVariant, times: number): void => {
    const variant = completeVariant(op, given);
    const key = JSON.stringify([op.id, axes, variant]);
    found.set(key, { op, axes, variant, times: times + (found.get(key)?.times ?? 0) });
  };
  const pages = Math.ceil(tokensHeld(eviction, context, chunk) / pageSize);
  const f32 = { keyPages: "f32" };
  for (const tokens of new Set([1, chunk])) {
    const each = tokens === 1 ? layers : 0;
    const project = (weight: { dtype: string }, outDim: number, inDim: number, besides: AnyVariant, rows = tokens): void =>
      ask(linear as Op, { tokens: rows, inDim, outDim }, { weight: weight.dtype, ...besides }, Math.sign(each));
    ask(embedding as Op, { tokens, vocab, dim }, { table: weights.embedding.dtype }, Math.sign(each));
    for (const layer of weights.layers) {
      project(layer.query, heads * headDim, dim, { bias: layer.queryBias !== undefined });
      project(layer.key, kvHeads * headDim, dim, { bias: layer.keyBias !== undefined });
      project(layer.value, kvHeads * headDim, dim, { bias: layer.valueBias !== undefined });
      project(layer.attentionOut, dim, heads * headDim, { residual: true });
      project(layer.gate, hiddenDim, dim, {});
      project(layer.up, hiddenDim, dim, {});
      project(layer.down, dim, hiddenDim, { residual: true });
    }
    ask(rmsNorm as Op, { tokens, dim }, {}, 2 * each);
    for (const count of [heads, kvHeads]) {
      const variant = { pairs: config.ropePairs, frequencies: config.ropeFrequencies !== undefined };
      ask(rope as Op, { tokens, heads: count, headDim, rotaryPairs }, variant, each);
    }
    ask(append as Op, appendAxes(config, pages, tokens), f32, each);
    ask(swiglu as Op, { tokens, dim: hiddenDim }, {}, each);
  }
  const axes = attentionAxes(config, pages, pageSize);
  if (!ownAttention) {
    ask(decode as Op, axes, f32, layers);
    ask(prefill as Op, { ...axes, tokens: chunk }, f32, 0);
  }
  ask(embedding as Op, { tokens: 1, vocab: chunk, dim }, { table: "f32" }, 0);
  ask(rmsNorm as Op, { tokens: 1, dim }, {}, 1);
  ask(linear as Op, { tokens: 1, inDim: dim, outDim: vocab }, { weight: weights.output.dtype }, 1);
  if (eviction) ask(compact as Op, compactAxes(config, { pages, pageSize }, eviction), f32, eviction.method === "snapkv" ? 0 : layers);
  if (eviction?.method === "snapkv") {
    const { keep, weigh } = windowAxes(config, pages, pageSize, eviction.window ?? 32, chunk);
    ask(append as Op, keep, f32, 0);
    ask(decodeAnchor as Op, weigh, f32, 0);
  }
  return [...found.values()];
}

/** A backend that can run a model, and why it is the one. */
export interface Suited {
  readonly backend: Backend;
  readonly why: string;
}

/** The backend that was named. Throws HotsetError: it is not there, or lacks an op. */
export function namedBackend(hotset: Hotset, id: string, asked: readonly Asked[]): Suited {
  const backend = hotset.backends.find((one) => one.id === id);
  if (!backend) {
    const missing = hotset.missing.find((one) => one.id === id);
    const expected = `a backend of ${hotset.backends.map((one) => one.id).join(", ")}`;
    if (!missing) throw new HotsetError("argument", { where: "openModel", expected, received: describe(id) });
    throw new BackendLoadError({ where: "openModel", expected: `backend ${id}`, received: `it is not available: ${missing.reason}` });
  }
  const reasons = new Map<string, string>();
  for (const { op, axes, variant } of asked) {
    const kernel = backend.kernel({ op, axes, variant });
    if (typeof kernel === "string") reasons.set(op.id, kernel);
  }
  if (reasons.size > 0)
    throw new UnsupportedError({
      where: "openModel",
      expected: `${id} to run every op of the model`,
      received: [...reasons].map(([op, reason]) => `${op}: ${reason}`).join("; "),
      hint: "Leave out backend for the fastest that can.",
    });
  return { backend, why: `${id} was asked for` };
}

/**
 * All backends that have a kernel for every op, by the predicted time of a token: its ops with everything in the backend's
 * memory, the drawing on the CPU, and on a device one wait for the logits. Throws UnsupportedError where there is none.
 */
export function suitedBackends(hotset: Hotset, asked: readonly Asked[], vocab: number): Suited[] {
  const us = new Map<string, number>(hotset.backends.map(({ id }) => [id, 0]));
  const reasons = new Map<string, string>(hotset.missing.map(({ id, reason }) => [id, reason]));
  const predicted = ({ op, axes, variant }: Omit<Asked, "times">) =>
    hotset.explain(op, axes, variant, { resident: presentTensors(op, variant) }).filter(({ backend }) => us.has(backend));
  for (const one of asked)
    for (const { backend, us: each, reason } of predicted(one)) {
      if (each === undefined) reasons.set(backend, `${one.op.id}: ${reason}`);
      us.set(backend, (us.get(backend) as number) + one.times * (each ?? Number.POSITIVE_INFINITY));
    }
  const drawing = predicted({ op: sample as Op, axes: { rows: 1, vocab }, variant: completeVariant(sample, {}) });
  const onCpu = Math.min(...drawing.map((one) => one.us ?? Number.POSITIVE_INFINITY));
  for (const backend of hotset.backends) {
    const { readbackUs = 0, copyGBs } = hotset.constants[backend.id] ?? defaultConstants(backend);
    const own = drawing.find((one) => one.backend === backend.id)?.us ?? Number.POSITIVE_INFINITY;
    const end = isDevice(backend) ? onCpu + readbackUs + (4 * vocab) / (copyGBs * 1e3) : own;
    us.set(backend.id, (us.get(backend.id) as number) + end);
  }
  const able = hotset.backends.filter(({ id }) => !reasons.has(id)).sort((a, b) => (us.get(a.id) as number) - (us.get(b.id) as number));
  if (able.length === 0)
    throw new UnsupportedError({
      where: "openModel",
      expected: "a backend that can run every op of the model",
      received: [...reasons].map(([id, reason]) => `${id}: ${reason}`).join("; "),
      hint: "See `hotset doctor`.",
    });
  return able.map((backend, i) => {
    const next = able[i + 1];
    const behind = next ? `next is ${next.id} at ${time(us.get(next.id) as number)}` : "no other backend can run it";
    const measured = hotset.constants[backend.id] ? "as measured here" : "by built-in figures; `hotset calibrate` measures this machine";
    return { backend, why: `${backend.id} is predicted at ${time(us.get(backend.id) as number)} a token; ${behind} (${measured})` };
  });
}
