/** `hotset explain`: the candidates for one piece of work, and the choice. */
import type { AxesOf, Op, VariantOf } from "@hotset/core";
import { opById, ops } from "@hotset/core/ops";
import { findHotset } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { pairs, print, table } from "./output.js";

interface ExplainOptions extends CommonOptions {
  readonly axes: string;
  readonly variant: string;
  readonly resident: string;
}

export async function explain(id: string, { axes, variant, resident, json }: ExplainOptions): Promise<void> {
  const op = opById(id);
  if (!op) throw new Error(`explain: expected an op of ${ops.map((known) => known.id).join(", ")} but received ${JSON.stringify(id)}`);
  const hotset = await findHotset();
  const sizes = Object.fromEntries(Object.entries(pairs(axes, "--axes")).map(([name, value]) => [name, Number(value)]));
  const chosen = Object.fromEntries(Object.entries(pairs(variant, "--variant")).map(([name, value]) => [name, parsed(value)]));
  const named = resident.split(",").filter(Boolean);
  const settings = { resident: named };
  const candidates = hotset.explain(op, sizes as AxesOf<Op>, chosen as VariantOf<Op>, settings);
  const plan = await hotset.plan(op, sizes as AxesOf<Op>, chosen as VariantOf<Op>, settings);
  print(
    json,
    { op: op.id, axes: sizes, variant: plan.variant, backend: plan.backend, kernel: plan.kernel, why: plan.why, candidates },
    () => {
      const rows = candidates.map(({ backend, target, kernel, prediction, reason }) => [
        backend,
        target,
        kernel ?? "-",
        ...(prediction
          ? [
              prediction.us,
              prediction.launchUs,
              prediction.transferUs,
              prediction.memoryUs,
              prediction.computeUs,
              prediction.readbackUs,
            ].map((us) => us.toFixed(1))
          : ["-", "", "", "", "", ""]),
        reason ?? "",
      ]);
      return [
        `${op.id}: ${plan.backend} (${plan.target}, kernel ${plan.kernel}), because ${plan.why}.`,
        "",
        table(
          [["backend", "target", "kernel", "us", "launch", "transfer", "memory", "arithmetic", "readback", ""], ...rows],
          [3, 4, 5, 6, 7, 8],
        ),
      ].join("\n");
    },
  );
  plan.dispose();
  hotset.dispose();
}

/** `true` and `false` are flags and optional tensors, numbers are numbers, the rest is text. */
function parsed(text: string): string | number | boolean {
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}
