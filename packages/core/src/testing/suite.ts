/** The conformance suite without a test framework: what there is to run on a backend, and what it must have shown. */
import { type Backend, isDevice } from "../backend.js";
import { portShape } from "../op/axes.js";
import type { AnyVariant, Op } from "../op/define.js";
import { variantKey, variants } from "../op/variant.js";
import { ops } from "../ops.js";
import { type Case, casesOf, type OpCases } from "./case.js";
import type { Placement } from "./guard.js";
import { evaluate, judge, prepare } from "./prepared.js";
import { Random } from "./random.js";
import { runCase, runnerOn } from "./run-case.js";
import { mostOfEach } from "./spread.js";

export interface TestItem {
  /** `op | variant | case`. */
  readonly name: string;
  readonly op: Op;
  readonly variant: AnyVariant;
  /** Throws with every problem and the command that repeats the first. */
  run(): Promise<void>;
}

/** What ran: kernels by `op | variant`; or the reason why nothing could. */
export interface Coverage {
  readonly kernels: Map<string, Set<string>>;
  readonly reasons: Map<string, string>;
}

export interface Suite {
  readonly items: readonly TestItem[];
  readonly coverage: Coverage;
  /** Cases that a device drawn by the CPU leaves to real ones: too large, or more than `softwareLimit.cases` of a variant. */
  readonly left: readonly string[];
}

/** What a device drawn by the CPU is given: work of a case, at some 0.1 GFLOP/s and a slow barrier; and cases of an op's variant. */
export const softwareLimit = { flops: 400_000, results: 6_000, cases: 16 } as const;

function tooLarge(op: Op, { axes }: Case, variant: AnyVariant): boolean {
  const { flops } = op.cost(axes, variant);
  const results = Object.values(op.ports).reduce(
    (sum, port) => sum + (port.kind === "tensor" && port.role === "out" ? portShape(port, axes).reduce((a, b) => a * b, 1) : 0),
    0,
  );
  return flops > softwareLimit.flops || results > softwareLimit.results;
}

/** Which variants a case runs in. */
export const variantsOf = (op: Op, test: Case): AnyVariant[] => variants(op).filter((variant, i) => test.variants?.(variant, i) ?? true);

/**
 * Every case and law of every op, on one backend. `only` is a case id or a part of one (HOTSET_CASE); `most`: of an op's
 * variant, on a device drawn by the CPU.
 */
export async function suiteOf(
  backend: Backend,
  { only, most = softwareLimit.cases }: { only?: string | undefined; most?: number } = {},
): Promise<Suite> {
  const coverage: Coverage = { kernels: new Map(), reasons: new Map() };
  const items: TestItem[] = [];
  const left: string[] = [];
  const few = !only && isDevice(backend) && backend.device.software;
  for (const op of ops) {
    const cases = await casesOf(op);
    const all = cases.cases.flatMap((test) => variantsOf(op, test).map((variant) => ({ test, variant, key: variantKey(op, variant) })));
    const small = few ? all.filter(({ test, variant }) => !tooLarge(op, test, variant)) : all;
    const chosen = new Set(few ? mostOfEach(small, ({ key }) => key, most) : all);
    for (const item of all) {
      const { test, variant, key } = item;
      const name = `${op.id} | ${key} | ${test.name}`;
      if (!chosen.has(item)) {
        left.push(name);
        continue;
      }
      const seeds = Array.from({ length: test.seeds ?? 2 }, (_, seed) => seed).filter((seed) => matches(`${name} | seed ${seed}`, only));
      if (seeds.length) items.push({ name, op, variant, run: () => runSeeds(backend, op, test, variant, cases, seeds, coverage) });
    }
    for (const law of cases.laws) {
      if (law.hostOnly && isDevice(backend)) continue;
      for (const variant of variants(op).filter((one) => law.variants?.(one) ?? true)) {
        const name = `${op.id} | ${variantKey(op, variant)} | law: ${law.name}`;
        if (!matches(name, only)) continue;
        items.push({
          name,
          op,
          variant,
          run: async () => {
            if (typeof backend.kernel({ op, axes: law.axes, variant }) === "string") return;
            const problem = await law.check(runnerOn(backend, op), { axes: law.axes, variant, random: new Random(name) }, (one) =>
              runnerOn(backend, one),
            );
            if (problem) throw new Error(`${problem}\n  repeat: ${repeatCommand(backend, name)}`);
          },
        });
      }
    }
  }
  return { items, coverage, left };
}

const matches = (id: string, only: string | undefined): boolean =>
  only === undefined || only === "" || id.includes(only) || only.includes(id);

const placements: readonly Placement[] = ["host", "owned", "shared"];

async function runSeeds(
  backend: Backend,
  op: Op,
  test: Case,
  variant: AnyVariant,
  cases: OpCases,
  seeds: readonly number[],
  coverage: Coverage,
): Promise<void> {
  const key = `${op.id} | ${variantKey(op, variant)}`;
  for (const seed of seeds) {
    const prepared = prepare(op, test, variant, seed);
    // Placement and misalignment follow from the case, so that a repeat is the same.
    const choice = new Random(`${prepared.id} place`);
    const { kernel, reason, problems } = await runCase(backend, prepared, cases, choice.pick(placements), choice.below(9));
    if (reason !== undefined) coverage.reasons.set(key, reason);
    if (kernel !== undefined) coverage.kernels.set(key, (coverage.kernels.get(key) ?? new Set()).add(kernel));
    if (problems.length) throw new Error(`${problems.join("\n")}\n  repeat: ${repeatCommand(backend, prepared.id)}`);
  }
}

const repeatCommand = (backend: Backend, id: string): string =>
  `HOTSET_CASE='${id}' npm test -- --conformance ${backend.id}-${backend.target}`;

/** What is wrong with the mutants of an op: cases that neither see one nor say why, and variants where none sees it. */
export function checkMutants(op: Op, cases: OpCases): string[] {
  const problems: string[] = [];
  const rejected = new Set<string>();
  for (const test of cases.cases) {
    for (const variant of variantsOf(op, test)) {
      for (let seed = 0; seed < (test.seeds ?? 2); seed++) {
        const prepared = prepare(op, test, variant, seed);
        const evidence = {
          op,
          axes: prepared.actual,
          variant,
          pitch: prepared.pitch,
          scalars: prepared.scalars,
          inputs: prepared.inputs,
          expected: prepared.expected,
        };
        for (const mutant of cases.mutants) {
          if (mutant.variants?.(variant) === false) continue;
          const { expected: got } = evaluate(prepared, (call) => mutant.run(call, op));
          const key = `${variantKey(op, variant)} | ${mutant.name}`;
          const seen = judge(prepared, cases, got, true) !== undefined;
          if (seen) rejected.add(`${key} | exact`);
          else if (mutant.blind(evidence) === undefined)
            problems.push(`${prepared.id}: does not see the mutant "${mutant.name}" and says no reason`);
          if (seen && !rejected.has(`${key} | tolerance`) && judge(prepared, cases, got, false) !== undefined)
            rejected.add(`${key} | tolerance`);
        }
      }
    }
  }
  for (const variant of variants(op)) {
    for (const mutant of cases.mutants) {
      if (mutant.variants?.(variant) === false) continue;
      for (const mode of mutant.exactOnly ? ["exact"] : ["exact", "tolerance"])
        if (!rejected.has(`${variantKey(op, variant)} | ${mutant.name} | ${mode}`))
          problems.push(`${op.id} | ${variantKey(op, variant)}: no case rejects the mutant "${mutant.name}" (${mode})`);
    }
  }
  return problems;
}
