import type { Law, Runner, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { sizes } from "../continual-single/inputs.js";
import type { RingAxes } from "../continual-single/ring.js";
import { continualSingle } from "../continual-single/spec.js";
import { retroactive } from "./inputs.js";
import { type RetroactiveTensors, rowExtra } from "./reference.js";

type Token = Record<"query" | "key" | "value", Float32Array>;

const tokens = (axes: RingAxes, count: number, spread: number, random: Random): Token[] =>
  Array.from({ length: count }, () => {
    const row = (size: number) => random.values(axes.streams * axes.heads * axes.headDim, () => size * random.normal());
    return { query: row(spread), key: row(1), value: row(1) };
  });

/** A stream that has not begun; nothing but `steps` is set. */
function fresh({ streams, heads, window, headDim }: RingAxes): Tensors {
  const ring = (width: number) => new Float32Array(streams * heads * window * width).fill(Number.NaN);
  return {
    keyRing: ring(headDim),
    valueRing: ring(headDim),
    queryRing: ring(headDim),
    rows: ring(headDim + rowExtra),
    steps: new Int32Array(streams),
  };
}

async function feed(run: Runner, axes: RingAxes, all: readonly Token[]): Promise<RetroactiveTensors> {
  let state = fresh(axes);
  for (const token of all) state = { ...(await run(axes, {}, { ...state, ...token })) };
  return state as unknown as RetroactiveTensors;
}

export const laws: readonly Law[] = [
  {
    name: "what came before the window changes no more than the estimates say",
    axes: sizes(2, 2, 9, 16),
    async check(run, { axes, random }) {
      const { window } = axes as RingAxes;
      const all = tokens(axes as RingAxes, 3 * window, 4, random);
      const [late, early] = [await feed(run, axes as RingAxes, all), await feed(run, axes as RingAxes, all.slice(-window))];
      const largest = late.valueRing.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const each = late.out.length / late.error.length;
      for (const [i, value] of late.out.entries()) {
        const head = Math.floor(i / each);
        // The weights carry the rounding of their logits, which the estimates leave out.
        const within = largest * (8 * ((late.error[head] as number) + (early.error[head] as number)) + 64 * 2 ** -20);
        if (!(Math.abs(value - (early.out[i] as number)) <= within))
          return `out[${i}] is ${value} after ${all.length} tokens and ${early.out[i]} after ${window}, more than ${within} apart`;
      }
      return undefined;
    },
  },
  {
    name: "its newest row is continual-single's answer",
    axes: sizes(2, 3, 12, 24),
    async check(run, request, other) {
      const { window, headDim } = request.axes as RingAxes;
      const given = retroactive({ spread: 3, arrived: (stream) => 5 + 20 * stream })(request);
      const { queryRing: _, rows: __, ...plain } = given;
      const got = (await run(request.axes, {}, given)) as unknown as RetroactiveTensors;
      const wanted = await other(continualSingle)(request.axes, {}, plain, { scale: 1 / Math.sqrt(headDim) });
      for (const [i, value] of (wanted.out as Float32Array).entries()) {
        const head = Math.floor(i / headDim);
        const place = head < 3 ? 5 : window - 1;
        const mine = got.out[(head * window + place) * headDim + (i % headDim)] as number;
        if (!(Math.abs(mine - value) < 2e-5)) return `component ${i % headDim} of head ${head} is ${mine}, continual-single says ${value}`;
      }
      return undefined;
    },
  },
  {
    name: "a stream gives the same bits alone as beside another",
    axes: sizes(2, 2, 8, 20),
    async check(run, { axes, random }) {
      const all = tokens(axes as RingAxes, 11, 3, random);
      const both = await feed(run, axes as RingAxes, all);
      const half = (data: Float32Array): Float32Array => data.slice(data.length / 2);
      const alone = await feed(
        run,
        { ...(axes as RingAxes), streams: 1 },
        all.map(({ query, key, value }) => ({ query: half(query), key: half(key), value: half(value) })),
      );
      const far = half(both.out).findIndex((value, i) => !Object.is(value, alone.out[i]));
      return far < 0 ? undefined : `out[${far}] is ${alone.out[far]} alone, ${half(both.out)[far]} beside another`;
    },
  },
];
