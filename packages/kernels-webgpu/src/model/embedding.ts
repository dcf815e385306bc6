/** model/embedding: a thread of model/embedding.wgsl a component; windows of the table's rows and of tokens. */
import { byteLength, type DType, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Program } from "../program.js";
import { rangeOf, tooLong, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "vocab" | "dim", number>;

export function embedding({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, vocab, dim } = axes as Axes;
  const dtype = variant.table as DType;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads } = facts.tunables;
  const rowBytes = byteLength(dtype, [dim]);
  const tableRows = windowRows(vocab, [rowBytes], limit);
  if (tableRows === 0) return tooLong("table", rowBytes, limit);
  const tokenRows = windowRows(tokens, [4, 4 * dim], limit);
  if (tokenRows === 0) return tooLong("out", 4 * dim, limit);
  const half = dtype === "f16" && facts.features.has("shader-f16");
  return {
    name: "rows",
    passes: {
      lookUp: {
        pieces: ["gen/params", "lib/values", "model/embedding"],
        flags: [`values_${dtype}`, ...(half ? ["shader_f16"] : [])],
        entry: "look_up",
        constants: { workgroup_threads: threads },
        bindings: { uniforms: 0, ids: 1, table: 2, out: 3, faults: 4 },
      },
    },
    faults: { scratch: "faults", ports: ["ids"] },
    arrange: () => ({
      scratch: { faults: faultBytes },
      launches: ({ tokens: now }) =>
        windowsOf(now as number, tokenRows).flatMap((some) =>
          windowsOf(vocab, tableRows).map((rows) => ({
            pass: "lookUp",
            workgroups: [Math.ceil(dim / threads), Math.min(some.count, most)] as const,
            words: [rows.first, rows.count, some.first, some.count],
            ranges: { ids: rangeOf(some, 4), table: rangeOf(rows, rowBytes), out: rangeOf(some, 4 * dim) },
          })),
        ),
    }),
  };
}
