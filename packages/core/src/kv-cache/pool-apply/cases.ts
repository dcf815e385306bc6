import type { ReferenceCall } from "../../op/define.js";
import type { Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import { headerWords, reference } from "./reference.js";

/** Commands as a caller would give them: mostly sensible, now and then wrong. */
function commandsFor(random: Random, blocks: number, count: number, wrong: number): Uint32Array {
  const held: number[] = [];
  const out = new Uint32Array(2 * count);
  let next = 0;
  for (let i = 0; i < count; i++) {
    const choice = random.uniform();
    if (random.uniform() < wrong)
      out.set(
        random.pick([
          [1, blocks],
          [2, blocks + random.below(9)],
          [3, 0xffffffff],
          [4, 0],
          [0xffffffff, 1],
          [2, random.below(blocks)],
        ]) as number[],
        2 * i,
      );
    else if (choice < 0.45 || held.length === 0) {
      out.set([0, random.bits()], 2 * i);
      // Which block comes is not tracked here: early ones come in order, later guesses may be wrong, which is a case too.
      if (next < blocks) held.push(next++);
    } else if (choice < 0.6) {
      const block = random.pick(held);
      held.push(block);
      out.set([1, block], 2 * i);
    } else {
      const [block] = held.splice(random.below(held.length), 1) as [number];
      out.set([random.uniform() < 0.3 ? 3 : 2, block], 2 * i);
    }
  }
  return out;
}

/** A pool that has been used for a while. */
function usedPool(random: Random, blocks: number): Uint32Array {
  const state = new Uint32Array(headerWords + 3 * blocks);
  const count = 3 * blocks;
  apply(state, blocks, commandsFor(random, blocks, count, 0));
  return state;
}

function apply(state: Uint32Array, blocks: number, commands: Uint32Array): Int32Array {
  const count = commands.length / 2;
  const results = new Int32Array(count);
  reference({ axes: { blocks, count }, variant: {}, scalars: {}, pitch: {}, tensors: { state, commands, results }, fail() {} });
  return results;
}

function inputs(start: "fresh" | "used", wrong: number, damage?: (state: Uint32Array, blocks: number) => void): Case["inputs"] {
  return ({ axes, random }: InputRequest): Tensors => {
    const { blocks, count } = axes as Record<"blocks" | "count", number>;
    const state = start === "fresh" ? new Uint32Array(headerWords + 3 * blocks) : usedPool(random, blocks);
    damage?.(state, blocks);
    return { state, commands: commandsFor(random, blocks, count, wrong) };
  };
}

/** Takes every block and gives them back, so that each link and both ends of the queue are followed. */
const drain = ({ axes }: InputRequest): Tensors => {
  const { blocks, count } = axes as Record<"blocks" | "count", number>;
  const commands = new Uint32Array(2 * count);
  for (let i = 0; i < count; i++) {
    const step = i % (2 * blocks + 2);
    if (step > blocks) commands.set([i % 3 === 0 ? 3 : 2, step - blocks - 1 < blocks ? step - blocks - 1 : 0], 2 * i);
  }
  return { state: new Uint32Array(headerWords + 3 * blocks), commands };
};

const sizes = (blocks: number, count: number) => ({ blocks, count });

export const cases: OpCases = {
  cases: [
    { name: "fresh pool", axes: sizes(16, 60), inputs: inputs("fresh", 0), seeds: 4 },
    { name: "used pool", axes: sizes(50, 200), inputs: inputs("used", 0), seeds: 4 },
    { name: "drained and refilled", axes: sizes(7, 100), inputs: drain, seeds: 1 },
    { name: "one block", axes: sizes(1, 30), inputs: inputs("fresh", 0), seeds: 3 },
    { name: "two blocks", axes: sizes(2, 40), inputs: inputs("used", 0), seeds: 3 },
    { name: "more than there is", axes: sizes(5, 64), inputs: inputs("fresh", 0.02), seeds: 2 },
    { name: "wrong commands", axes: sizes(12, 80), inputs: inputs("used", 0.2), seeds: 4 },
    { name: "no commands", axes: sizes(9, 0), inputs: inputs("used", 0), seeds: 1 },
    { name: "fewer commands at run time", axes: sizes(20, 50), live: { count: 31 }, inputs: inputs("used", 0) },
    { name: "large", axes: sizes(3000, 9000), inputs: inputs("used", 0.001), seeds: 1 },
    { name: "of another size", axes: sizes(10, 20), inputs: inputs("used", 0, (state) => state.set([9], 1)), seeds: 1 },
    { name: "not a pool", axes: sizes(10, 20), inputs: inputs("used", 0, (state) => state.set([123], 0)), seeds: 1 },
    { name: "wild head", axes: sizes(10, 20), inputs: inputs("fresh", 0, (state, blocks) => damaged(state, blocks, 3)), seeds: 1 },
    { name: "wild tail", axes: sizes(10, 40), inputs: inputs("fresh", 0, (state, blocks) => damaged(state, blocks, 4)), seeds: 2 },
    { name: "wild links", axes: sizes(10, 40), inputs: inputs("used", 0, (state) => state.fill(0x7fffffff, headerWords + 10)), seeds: 2 },
    { name: "noise", axes: sizes(10, 60), inputs: (request) => noise(request), seeds: 6 },
  ],
  mutants: [
    {
      name: "released to the other end",
      run: (call) =>
        rewritten(call, (commands) => commands.map((word, i) => (i % 2 === 0 && (word === 2 || word === 3) ? 5 - word : word))),
      blind: ({ inputs: given, expected, axes, op, variant, pitch }) =>
        sameState(op.reference, given, expected, axes, variant, pitch, (word) => (word === 2 || word === 3 ? 5 - word : word)),
    },
    {
      name: "retain forgotten",
      run: (call) => rewritten(call, (commands) => commands.map((word, i) => (i % 2 === 0 && word === 1 ? 9 : word))),
      blind: ({ inputs: given, axes, expected }) =>
        opcodes(given, axes).includes(1) &&
        (expected.results as Int32Array).some((result, i) => result >= 0 && (given.commands as Uint32Array)[2 * i] === 1)
          ? undefined
          : "nothing is retained",
    },
    {
      name: "last command dropped",
      run: (call) => reference({ ...call, axes: { ...call.axes, count: Math.max(0, (call.axes.count as number) - 1) } }),
      blind: ({ axes, expected }) => {
        const count = axes.count as number;
        return count === 0
          ? "there are no commands"
          : (expected.results as Int32Array)[count - 1] === -1
            ? "the last command does nothing"
            : undefined;
      },
    },
    {
      name: "bad block not reported",
      run(call) {
        const results = call.tensors.results as Int32Array;
        reference({ ...call, fail() {} });
        for (let i = 0; i < (call.axes.count as number); i++)
          if (results[i] === -1 && (call.tensors.commands as Uint32Array)[2 * i] !== 0) results[i] = 0;
      },
      blind: ({ expected, inputs: given, axes }) =>
        opcodes(given, axes).some((opcode, i) => opcode !== 0 && (expected.results as Int32Array)[i] === -1)
          ? undefined
          : "no command is refused",
    },
  ],
  laws: [
    {
      name: "two lists of commands give what one gives",
      axes: sizes(30, 120),
      async check(run, request) {
        const { state, commands } = inputs("used", 0)(request) as { state: Uint32Array; commands: Uint32Array };
        const valid = withoutFaults(state, 30, commands);
        const count = valid.length / 2;
        const whole = await run(sizes(30, count), {}, { state, commands: valid });
        const half = Math.floor(count / 2);
        const first = await run(sizes(30, half), {}, { state, commands: valid.slice(0, 2 * half) });
        const second = await run(sizes(30, count - half), {}, { state: first.state as Uint32Array, commands: valid.slice(2 * half) });
        const same = (whole.state as Uint32Array).every((word, i) => word === (second.state as Uint32Array)[i]);
        return same ? undefined : "the states differ";
      },
    },
    {
      name: "every block is free or held",
      axes: sizes(40, 300),
      async check(run, request) {
        const { state, commands } = inputs("used", 0)(request) as { state: Uint32Array; commands: Uint32Array };
        const valid = withoutFaults(state, 40, commands);
        const { state: left } = await run(sizes(40, valid.length / 2), {}, { state, commands: valid });
        const after = left as Uint32Array;
        const free = new Set<number>();
        for (let block = after[3] as number; block !== 0xffffffff && free.size <= 40; block = after[headerWords + 80 + block] as number)
          free.add(block);
        for (let block = 0; block < 40; block++)
          if (free.has(block) !== (after[headerWords + block] === 0))
            return `block ${block} has ${after[headerWords + block]} references and is ${free.has(block) ? "" : "not "}free`;
        return free.size === after[2] ? undefined : `${free.size} blocks in the queue, ${after[2]} counted`;
      },
    },
  ],
  bench: [
    {
      name: "10k commands on 100k blocks",
      calibrate: true,
      axes: sizes(100_000, 10_000),
      variants: [{}],
      inputs: ({ axes }) => {
        const { blocks, count } = axes as Record<"blocks" | "count", number>;
        const state = new Uint32Array(headerWords + 3 * blocks);
        apply(state, blocks, new Uint32Array([0, 0]));
        // Blocks 1, 2, ... are taken and given back in the other order to the front: each run finds what the first found.
        const commands = new Uint32Array(2 * count);
        const half = Math.floor(count / 2);
        for (let i = 0; i < half; i++) commands.set([3, half - i], 2 * (half + i));
        return { state, commands };
      },
    },
  ],
};

function damaged(state: Uint32Array, blocks: number, at: number): void {
  apply(state, blocks, new Uint32Array([0, 0]));
  state[at] = blocks + 5;
}

function noise({ axes, random }: InputRequest): Tensors {
  const { blocks, count } = axes as Record<"blocks" | "count", number>;
  const state = usedPool(random, blocks);
  for (let i = 0; i < 6; i++) state[2 + random.below(state.length - 2)] = random.pick([random.bits(), random.below(blocks), 0xffffffff, 0]);
  const commands = Uint32Array.from({ length: 2 * count }, (_, i) => (i % 2 ? random.below(blocks + 1) : random.below(4)));
  return { state, commands };
}

const opcodes = (given: Tensors, axes: Readonly<Record<string, number>>): number[] =>
  Array.from({ length: axes.count as number }, (_, i) => (given.commands as Uint32Array)[2 * i] as number);

function rewritten(call: ReferenceCall, change: (commands: Uint32Array) => Uint32Array): void {
  reference({ ...call, tensors: { ...call.tensors, commands: change(call.tensors.commands as Uint32Array) } });
}

/** Only the commands that are right in their turn: what remains cannot fault. */
function withoutFaults(state: Uint32Array, blocks: number, commands: Uint32Array): Uint32Array {
  const trial = state.slice();
  const kept: number[] = [];
  for (let i = 0; i < commands.length; i += 2) {
    const pair = commands.slice(i, i + 2);
    const [result] = apply(trial, blocks, pair) as unknown as [number];
    if (result >= 0 || pair[0] === 0) kept.push(...pair);
  }
  return Uint32Array.from(kept);
}

function sameState(
  run: (call: ReferenceCall) => void,
  given: Tensors,
  expected: Tensors,
  axes: ReferenceCall["axes"],
  variant: ReferenceCall["variant"],
  pitch: ReferenceCall["pitch"],
  opcode: (word: number) => number,
): string | undefined {
  const state = (given.state as Uint32Array).slice();
  const commands = (given.commands as Uint32Array).map((word, i) => (i % 2 === 0 ? opcode(word) : word));
  const results = new Int32Array(axes.count as number);
  run({ axes, variant, pitch, scalars: {}, tensors: { state, commands, results }, fail() {} });
  const same =
    state.every((word, i) => word === (expected.state as Uint32Array)[i]) &&
    results.every((result, i) => result === (expected.results as Int32Array)[i]);
  return same ? "the end of the queue it joins changes nothing" : undefined;
}
