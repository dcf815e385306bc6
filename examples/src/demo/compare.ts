/** One search on every backend: times, GB/s, and whether all say the same. */
import type { Hotset, Step } from "hotset";
import { search } from "hotset";
import { table } from "./print.js";

export interface Job {
  readonly name: string;
  readonly axes: { readonly batch: number; readonly count: number; readonly dim: number; readonly k: number };
  readonly metric: "cos" | "ip" | "l2";
  readonly queries: Float32Array;
  readonly rows: Float32Array | Int8Array;
  readonly rowScale?: Float32Array;
}

export interface Found {
  readonly ids: Int32Array;
  readonly scores: Float32Array;
}

/** Runs the jobs on every backend, prints the times, checks that the results have the same bits, and returns them. */
export async function compare(hotset: Hotset, jobs: readonly Job[]): Promise<Found[]> {
  const lines: string[][] = [];
  const results: Found[] = [];
  let same = true;
  for (const [j, job] of jobs.entries()) {
    // Equal bits are owed by the backends on the CPU; a GPU rounds its own way.
    for (const { id } of hotset.backends.filter(({ device }) => device === undefined)) {
      const { found, milliseconds, kernel } = timed(hotset, job, id);
      const bytes = job.axes.count * job.axes.dim * job.rows.BYTES_PER_ELEMENT;
      lines.push([
        `  ${job.name}`,
        id,
        kernel,
        milliseconds.toFixed(1),
        (bytes / milliseconds / 1e6).toFixed(1),
        ((job.axes.batch / milliseconds) * 1e3).toFixed(0),
      ]);
      results[j] ??= found;
      const first = results[j] as Found;
      if (String(found.ids) !== String(first.ids) || !Buffer.from(found.scores.buffer).equals(Buffer.from(first.scores.buffer))) {
        same = false;
        console.error(`  ${id} does not agree with ${hotset.backends[0]?.id} on ${job.name}`);
      }
    }
  }
  console.log(table([["", "backend", "kernel", "ms", "GB/s", "queries/s"], ...lines], [3, 4, 5]));
  console.log(same ? "\n  All backends agree: the same rows, and the same bits in every score." : "\n  The backends do NOT agree.");
  if (!same) process.exitCode = 1;
  return results;
}

/** What `auto` takes for each job, and why. */
export function explainChoice(hotset: Hotset, jobs: readonly Job[]): void {
  for (const { name, axes, metric, rows } of jobs) {
    const plan = hotset.planSync(search.scan, axes, { metric, rows: rows instanceof Int8Array ? "i8" : "f32" }, { resident: ["rows"] });
    console.log(`  ${name}: ${plan.backend}, because ${plan.why}`);
  }
}

function timed(
  hotset: Hotset,
  { axes, metric, queries, rows, rowScale }: Job,
  backend: string,
): { found: Found; milliseconds: number; kernel: string } {
  const plan = hotset.planSync(search.scan, axes, { metric, rows: rows instanceof Int8Array ? "i8" : "f32" }, { backend });
  // In the backend's own memory: a search engine keeps its rows there, so no run pays for a copy.
  const resident = plan.alloc("rows");
  (resident.data as Float32Array).set(rows);
  const step = plan.bind({ queries, rows: resident, ...(rowScale ? { rowScale } : {}) } as never) as Step;
  let outputs = step.run() as unknown as Found;
  const times: number[] = [];
  for (const end = performance.now() + 400; times.length < 3 || (times.length < 25 && performance.now() < end); ) {
    const start = performance.now();
    outputs = step.run() as unknown as Found;
    times.push(performance.now() - start);
    if (times.length === 1 && (times[0] as number) > 1500) break;
  }
  times.sort((a, b) => a - b);
  const found = { ids: outputs.ids.slice(), scores: outputs.scores.slice() };
  step.dispose();
  resident.dispose();
  return { found, milliseconds: times[times.length >> 1] as number, kernel: plan.kernel };
}
