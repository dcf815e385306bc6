// The conformance suite on one backend, without a test framework: a line of JSON for each item as it ends, so that what
// ran is known even if the process dies. scripts/gpu-check reads them, and starts it again after an item that killed it.
//
//   node conformance.mjs <backend> [--start N] [--emulated] [--only TEXT] [--most N]
import { readFileSync } from "node:fs";
import { observedRows, suiteOf, supportProblems, targetOf } from "@hotset/core/testing/cases";
import { open, say } from "./open.mjs";

const [id, ...options] = process.argv.slice(2);
const option = (name) => (options.includes(name) ? options[options.indexOf(name) + 1] : undefined);
const start = Number(option("--start") ?? 0);
const most = Number(option("--most") ?? Number.POSITIVE_INFINITY);

const backend = await open(id, options.includes("--emulated"));
const { items: all, coverage, left } = await suiteOf(backend, { only: option("--only") });
// A spread over all of them, for trials of this script.
const items = all.length > most ? all.filter((_, i) => i % Math.ceil(all.length / most) === 0) : all;
const none = observedRows(backend, { kernels: new Map(), reasons: new Map() });
const { name, features } = backend;
say({
  suite: { name, features, target: targetOf(backend), items: items.length, left: left.length, spread: items.length < all.length },
  rows: none,
});

const told = new Map();
for (let i = start; i < items.length; i++) {
  const item = items[i];
  say({ begin: i, name: item.name });
  const began = performance.now();
  const error = await item.run().then(
    () => undefined,
    (problem) => String(problem?.message ?? problem).slice(0, 2000),
  );
  const key = item.name.split(" | ").slice(0, 2).join(" | ");
  const seen = { kernels: [...(coverage.kernels.get(key) ?? [])].sort(), reason: coverage.reasons.get(key) };
  const news = JSON.stringify(seen) !== told.get(key);
  told.set(key, JSON.stringify(seen));
  say({ end: i, name: item.name, key, ms: Math.round(performance.now() - began), ...(error ? { error } : {}), ...(news ? seen : {}) });
  const { lost } = backend.device ?? {};
  if (lost !== undefined) {
    say({ lost });
    process.exit(3);
  }
}
// Only a whole run in one process can be held against what support.json claims.
const claims = JSON.parse(readFileSync(new URL("../../support.json", import.meta.url), "utf8"));
const whole = start === 0 && items.length === all.length;
say({ done: true, ...(whole ? { claims: supportProblems(claims, observedRows(backend, coverage)) } : {}) });
backend.dispose();
process.exit(0);
