/** `hotset kv replay`: what each eviction policy would have saved on a trace of requests. */
import { type KvTrace, type ReplayPolicy, type ReplayResult, type ReplaySemantics, replay, replayPolicies } from "@hotset/core/kv-cache";
import { openTrace } from "@hotset/core/node";
import type { CommonOptions } from "./index.js";
import { print, progress, table } from "./output.js";

interface ReplayOptions extends CommonOptions {
  readonly format: "mooncake" | "weka" | "ragpulse" | "libcachesim";
  readonly policy: string;
  readonly capacity: string;
  readonly semantics: ReplaySemantics;
  readonly leafSafe?: boolean;
  readonly hints: boolean;
}

export async function kvReplay(path: string, options: ReplayOptions): Promise<void> {
  const { format, semantics, leafSafe = false, hints, json } = options;
  const policies = policyList(options.policy);
  const sizes = capacityList(options.capacity);
  const bar = progress(json);
  try {
    const trace = await openTrace(path, format, (read, size) => bar.step(read, size, "bytes of the trace"));
    bar.stop();
    const rows = replayAll(trace, policies, sizes, { semantics, leafSafe, hints }, json);
    const { requests, references, unique } = trace;
    print(json, { trace: path, format, semantics, leafSafe, hints, requests, references, uniqueBlocks: unique, rows }, () =>
      [
        `${requests} requests, ${references} references to ${unique} blocks; hits are counted ${says[semantics]}${leafSafe ? ", children leave before parents" : ""}.`,
        "",
        table(
          [
            ["policy", "capacity", "hits", "hit ratio", "misses over Belady's"],
            ...rows.map(({ policy, capacity, hits, hitRatio, missesOverBelady }) => [
              policy,
              String(capacity),
              String(hits),
              hitRatio.toFixed(4),
              missesOverBelady === null ? "-" : missesOverBelady.toFixed(3),
            ]),
          ],
          [1, 2, 3, 4],
        ),
      ].join("\n"),
    );
  } finally {
    bar.stop();
  }
}

const says = { flat: "block by block", prefix: "while every earlier block of the request hit", req: "as the longest prefix on arrival" };

interface Row extends ReplayResult {
  readonly hitRatio: number;
  /** Null where Belady misses nothing. */
  readonly missesOverBelady: number | null;
}

function replayAll(
  trace: KvTrace,
  policies: readonly ReplayPolicy[],
  sizes: readonly ((unique: number) => number)[],
  settings: { semantics: ReplaySemantics; leafSafe: boolean; hints: boolean },
  json: boolean | undefined,
): Row[] {
  const bar = progress(json);
  const rows: Row[] = [];
  let done = 0;
  for (const size of sizes) {
    const capacity = size(trace.unique);
    const run = (policy: ReplayPolicy): ReplayResult => {
      bar.step(done++, sizes.length * (policies.length + 1), `replays: ${policy}, ${capacity} blocks`);
      return replay(trace, { policy, capacity, ...settings });
    };
    const best = run("belady");
    for (const policy of policies) {
      const result = policy === "belady" ? best : run(policy);
      const missesAtBest = best.references - best.hits;
      rows.push({
        ...result,
        hitRatio: result.references ? result.hits / result.references : 0,
        missesOverBelady: missesAtBest ? (result.references - result.hits) / missesAtBest : null,
      });
    }
  }
  bar.stop();
  return rows;
}

function policyList(text: string): ReplayPolicy[] {
  if (text === "all") return [...replayPolicies];
  const names = parts(text, "--policy");
  for (const name of names)
    if (!(replayPolicies as readonly string[]).includes(name))
      throw new Error(`--policy: expected all or some of ${replayPolicies.join(", ")} but received ${JSON.stringify(name)}`);
  return names as ReplayPolicy[];
}

/** Each is a number of blocks, or a percentage of the unique blocks: rounded down, and at least 1. */
function capacityList(text: string): ((unique: number) => number)[] {
  return parts(text, "--capacity").map((part) => {
    const percent = part.endsWith("%");
    const value = Number(percent ? part.slice(0, -1) : part);
    const sound = percent ? value > 0 && value <= 100 && part.length > 1 : Number.isSafeInteger(value) && value >= 1 && value < 2 ** 31;
    if (!sound)
      throw new Error(
        `--capacity: expected numbers of blocks, or percentages of the unique blocks such as 5%, but received ${JSON.stringify(part)}`,
      );
    return percent ? (unique) => Math.max(1, Math.floor((unique * value) / 100)) : () => value;
  });
}

function parts(text: string, flag: string): string[] {
  const found = text.split(",").map((part) => part.trim());
  if (found.some((part) => part === "")) throw new Error(`${flag}: expected a list a,b,... but received ${JSON.stringify(text)}`);
  return found;
}
