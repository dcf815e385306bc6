/** Timing whole calls, interleaved, so that what is compared meets the same machine. */

/** Milliseconds of one call. */
export function once(run: () => unknown): number {
  const start = performance.now();
  run();
  return performance.now() - start;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

/** Times of the fastest of several ways to do the same, found by a first pass. */
export function timeFastest(ways: readonly (() => unknown)[], milliseconds: number): number[] {
  const fastest =
    ways.length === 1
      ? (ways[0] as () => unknown)
      : (ways.map((way) => ({ way, ms: Math.min(once(way), once(way)) })).sort((a, b) => a.ms - b.ms)[0]?.way as () => unknown);
  fastest();
  const times: number[] = [];
  for (const end = performance.now() + milliseconds; times.length < 3 || performance.now() < end; ) times.push(once(fastest));
  return times;
}

/** Runs each in turn, round after round, and returns the times of each. */
export function interleaved(runs: readonly (() => unknown)[], rounds: number): number[][] {
  for (const run of runs) run();
  const times: number[][] = runs.map(() => []);
  for (let round = 0; round < rounds; round++) for (const [i, run] of runs.entries()) times[i]?.push(once(run));
  return times;
}
