/** The first part of the demo: the backends, and how fast they are. */
import { calibrate, type Hotset, search } from "hotset";
import { rowsOf, table } from "./print.js";

export function listBackends({ backends, missing }: Hotset): void {
  console.log("Backends on this machine");
  console.log(
    table([...backends.map(({ id, name }) => [`  ${id}`, "yes", name]), ...missing.map(({ id, reason }) => [`  ${id}`, "no", reason])]),
  );
}

/** Measures each backend, and lets the choice go by it for the rest of the demo. */
export async function measureBackends(hotset: Hotset): Promise<void> {
  console.log("\nMeasuring them");
  const one = { batch: 1, count: 40_000, dim: 100, k: 10 };
  const many = { batch: 48, count: 20_000, dim: 100, k: 10 };
  const variant = { metric: "cos", rows: "f32", filter: false } as const;
  const work = [one, many].map((axes) => ({
    op: search.scan,
    axes,
    variant,
    inputs: () => ({ queries: rowsOf(axes.batch, axes.dim, 1), rows: rowsOf(axes.count, axes.dim, 2) }),
  }));
  hotset.constants = await calibrate(hotset.backends, work);
  const rows = Object.entries(hotset.constants).map(([id, { launchUs, readGBs, gflops }]) => [
    `  ${id}`,
    launchUs.toFixed(2),
    (readGBs.at(-1)?.[1] ?? 0).toFixed(1),
    gflops.toFixed(1),
  ]);
  console.log(table([["", "start us", "memory GB/s", "GFLOP/s"], ...rows], [1, 2, 3]));
}
