/**
 * The conformance suite, for backends' own test files:
 *
 *   import { conformance } from "@hotset/core/testing";
 *   await conformance(native({ isa: "avx2" }));
 *
 * registers every case of every op with vitest, and checks what ran against support.json. HOTSET_CASE runs one
 * case; HOTSET_RECORD names a folder for what was seen.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Backend } from "../backend.js";
import { softwareLimit, suiteOf } from "./suite.js";
import { observedRows, type SupportRow, supportProblems, targetOf } from "./support-rows.js";

export { type BenchCase, type Case, casesOf, type OpCases } from "./case.js";
export { difference, toleranceOf } from "./compare.js";
export { packCases } from "./pack.js";
export { evaluate, judge, prepare } from "./prepared.js";
export { Random } from "./random.js";
export { runCase } from "./run-case.js";
export { checkMutants, type Suite, suiteOf, variantsOf } from "./suite.js";
export { observedRows, type SupportRow, supportProblems, targetOf } from "./support-rows.js";

/** Registers the suite for one backend. */
export async function conformance(backend: Backend): Promise<void> {
  const only = process.env.HOTSET_CASE || undefined;
  const { items, coverage, left } = await suiteOf(backend, { only });
  describe(`conformance of ${backend.name}`, () => {
    for (const { name, run } of items) it(name, run);

    if (left.length > 0 && only === undefined)
      it(`leaves ${left.length} cases to real devices, by name: above ${softwareLimit.flops} flops, ${softwareLimit.results} results or ${softwareLimit.cases} of a variant`, () => {
        const count = (of: readonly string[]): Map<string, number> => {
          const counts = new Map<string, number>();
          for (const name of of) {
            const key = name.slice(0, name.lastIndexOf(" | "));
            counts.set(key, (counts.get(key) ?? 0) + 1);
          }
          return counts;
        };
        const ran = count(items.map(({ name }) => name));
        for (const [key, skipped] of count(left)) {
          const run = ran.get(key) ?? 0;
          expect(run > 5 || run >= skipped, `${key}: ${run} cases left to run, ${skipped} left out`).toBe(true);
        }
        console.log(`${backend.name} leaves to real devices:\n  ${left.join("\n  ")}`);
      });

    it.runIf(only === undefined)("runs what support.json claims, and nothing silently", () => {
      expect(coverage.kernels.size, `${backend.name} ran no case at all`).toBeGreaterThan(0);
      const observed = observedRows(backend, coverage);
      record(backend, observed);
      expect(supportProblems(claims(), observed)).toEqual([]);
    });
  });
}

function record(backend: Backend, observed: readonly Omit<SupportRow, "verified">[]): void {
  const folder = process.env.HOTSET_RECORD;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${targetOf(backend)}.json`), JSON.stringify(observed));
}

function claims(): SupportRow[] {
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    const path = join(folder, "support.json");
    if (existsSync(path)) return JSON.parse(readFileSync(path, "utf8")) as SupportRow[];
    if (dirname(folder) === folder) throw new Error("support.json was not found above the current folder");
  }
}
