/** attention/rope: a thread of attention/rope.wgsl a pair; frequencies by theta as turns a position, in fixed point. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "heads" | "headDim" | "rotaryPairs", number>;

export function rope({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, heads, headDim, rotaryPairs } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const tokenBytes = 4 * heads * headDim;
  const window = windowRows(tokens, [tokenBytes, 4], limit);
  if (window === 0) return tooLong("x", tokenBytes, limit);
  const given = variant.frequencies === true;
  return {
    name: "pairs",
    passes: {
      turn: {
        pieces: ["gen/params", "lib/float", "lib/turns", "attention/rope"],
        flags: [...(given ? ["given"] : []), ...(variant.pairs === "half" ? ["halves"] : [])],
        entry: "turn",
        constants: { workgroup_threads: threads, rotary_pairs: rotaryPairs },
        bindings: { uniforms: 0, x: 1, positions: 2, out: 3, ...(given ? { frequencies: 4 } : {}) },
      },
    },
    arrange: () => ({
      scratch: {},
      launches({ tokens: now }, { theta }) {
        const table = given ? [] : tableOf(theta as number, rotaryPairs);
        return windowsOf(now as number, window).map((some) => {
          const groups = Math.ceil((some.count * heads * (headDim - rotaryPairs)) / threads);
          const across = Math.min(groups, most);
          const range = rangeOf(some, tokenBytes);
          return {
            pass: "turn",
            workgroups: [across, Math.ceil(groups / across)],
            // The table starts on 16 bytes.
            words: [some.count, 0, 0, 0, ...table],
            ranges: { x: range, positions: rangeOf(some, 4), out: range },
          };
        });
      },
    }),
  };
}

/** 1 / (2 pi), 256 bits behind the point. */
const inverseTurn = 0x28be60db9391054a7f09d5f47d4d377036d8a5664f10e4107f9458eaf7aef158n;
const turnBits = 96;

/** Four words a pair: its turns a position modulo 1, 96 bits behind the point, and its frequency as f32. */
export function tableOf(theta: number, pairs: number): number[] {
  return Array.from({ length: pairs }, (_, i) => {
    const frequency = theta ** (-i / pairs);
    const turns = turnsOf(frequency);
    const word = (at: number): number => Number((turns >> BigInt(32 * at)) & 0xffffffffn);
    return [word(2), word(1), word(0), new Uint32Array(Float32Array.of(frequency).buffer)[0] as number];
  }).flat();
}

/** frequency / (2 pi) modulo 1, of the exact value of the f64. */
function turnsOf(frequency: number): bigint {
  const bits = new BigUint64Array(Float64Array.of(frequency).buffer)[0] as bigint;
  const exponent = Number(bits >> 52n);
  const significand = (bits & 0xfffffffffffffn) | (1n << 52n);
  // The significand counts 2^(exponent - 1075).
  return BigInt.asUintN(turnBits, (significand * inverseTurn) >> BigInt(256 - turnBits + 1075 - exponent));
}
