/**
 * `node bench/dist/kv-replay.js [--data DIR] [--looked] [--semantics flat|prefix|req]`: class hazard beside LRU and
 * Belady at 1 to 50 % of the unique blocks, with and without hints (how replies ended), on the half of the sessions
 * that its constants were not looked at with. Traces under DIR/traces (default ../shared/data) that are absent are
 * named; sessions of made-up agents are always replayed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { agentSessions, halfOf, type KvTrace, type ReplaySemantics, replay, type TraceFormat } from "@hotset/core/kv-cache";
import { openTrace } from "@hotset/core/node";

const { values } = parseArgs({
  options: {
    data: { type: "string", default: "../shared/data" },
    looked: { type: "boolean", default: false },
    semantics: { type: "string", default: "flat" },
  },
});
const semantics = values.semantics as ReplaySemantics;
if (!["flat", "prefix", "req"].includes(semantics)) throw new Error(`--semantics: expected flat, prefix or req, received ${semantics}`);

const recorded: readonly (readonly [string, TraceFormat, string])[] = [
  ["Mooncake conversation", "mooncake", "mooncake/conversation_trace.jsonl.gz"],
  ["WEKA sessions", "weka", "weka/sessions_151_420.jsonl.gz"],
  ["RAGPulse", "ragpulse", "ragpulse/0_trace.jsonl.gz"],
];
const percentages = [1, 2, 5, 10, 20, 50];
let worse = 0;

console.log(
  `${values.looked ? "The half that was looked at" : "The half of the sessions that was not looked at"}; hit ratios, ${semantics}.`,
);
for (const [name, format, file] of recorded) {
  const path = join(values.data, "traces", file);
  if (existsSync(path)) show(name, await openTrace(path, format));
  else console.log(`\n${name}: not here (${path})`);
}
for (const seed of [1, 2]) show(`agents, seed ${seed}`, agentSessions({ seed, sessions: 1000 }));
console.log(`\nhazard below LRU: ${worse} times`);

function show(name: string, whole: KvTrace): void {
  const trace = halfOf(whole, values.looked ? 0 : 1);
  const capacities = percentages.map((percent) => Math.max(1, Math.floor((trace.unique * percent) / 100)));
  console.log(`\n${name}: ${trace.requests} requests, ${trace.references} references, ${trace.unique} blocks`);
  console.log(row("% of unique blocks", percentages.map(String)));
  const hits = (policy: "lru" | "hazard" | "belady", hints: boolean): number[] =>
    capacities.map((capacity) => replay(trace, { policy, capacity, semantics, hints }).hits);
  const [lru, hinted, plain, belady] = [hits("lru", false), hits("hazard", true), hits("hazard", false), hits("belady", false)];
  for (const [policy, counts] of Object.entries({ lru, "hazard with hints": hinted, "hazard without": plain, belady }))
    console.log(
      row(
        policy,
        counts.map((count) => (count / trace.references).toFixed(4)),
      ),
    );
  for (const counts of [hinted, plain]) worse += counts.filter((count, i) => count < (lru[i] as number)).length;
}

function row(label: string, cells: readonly string[]): string {
  return label.padEnd(20) + cells.map((cell) => cell.padStart(8)).join("");
}
