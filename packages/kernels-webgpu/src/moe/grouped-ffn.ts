/** moe/grouped-ffn: the passes of moe/grouped-ffn.wgsl: three that check, one that clears, up and down. */
import { byteLength, type DType, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import type { DeviceFacts, Pass, Program } from "../program.js";

type Axes = Record<"tokens" | "topK" | "experts" | "slots" | "dim" | "hidden" | "blockSize" | "capacity", number>;

/** Threads that share a row of weights, and rows of an expert that share its weights. */
const sharing = 16;
const partRows = 4;

export function groupedFfn({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const sizes = axes as Axes;
  const { tokens, topK, experts, slots, dim, hidden, blockSize, capacity } = sizes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const dtype = variant.gate as DType;
  const blocks = Math.ceil(capacity / blockSize);
  const scratch = { work: faultBytes + 4 * (tokens * topK + capacity + blocks), inside: Math.max(4, 4 * capacity * hidden) };
  const whole = {
    gate: byteLength(dtype, [slots, hidden, dim]),
    down: byteLength(dtype, [slots, dim, hidden]),
    out: 4 * tokens * topK * dim,
    "what lies inside the experts": scratch.inside,
  };
  for (const [name, size] of Object.entries(whole))
    if (size > limit) return `${name} takes ${size} bytes, more than one binding of this device (${limit})`;
  const { threads } = facts.tunables;
  if (threads < sharing) return `its tiles need ${sharing} threads, and this device is given ${threads}`;
  const half = dtype === "f16" && facts.features.has("shader-f16");
  const pass = (entry: string, flags: readonly string[], bindings: Readonly<Record<string, number>>): Pass => ({
    pieces: ["gen/params", ...(entry === "multiply" ? ["lib/values", "lib/silu"] : []), "moe/grouped-ffn"],
    flags,
    entry,
    constants: { workgroup_threads: threads },
    bindings: { uniforms: 0, ...bindings },
  });
  const values = [`values_${dtype}`, ...(half ? ["shader_f16"] : [])];
  const passes = {
    begin: pass("begin", ["checks"], { work: 4 }),
    claim: pass("claim", ["checks"], { sorted: 1, blockExpert: 2, expertSlot: 3, work: 4 }),
    settle: pass("settle", ["checks"], { work: 4 }),
    clear: pass("clear", ["clears"], { work: 1, out: 2 }),
    up: pass("multiply", [...values, "goes_up"], { work: 1, x: 2, gate: 3, up: 4, inside: 5 }),
    down: pass("multiply", values, { work: 1, inside: 2, down: 3, out: 4 }),
  };
  const spread = (items: number): [number, number] => {
    const groups = Math.max(1, Math.ceil(items / threads));
    const across = Math.min(groups, most);
    return [across, Math.ceil(groups / across)];
  };
  const parts = Math.max(1, Math.min(most, blocks * Math.ceil(blockSize / partRows)));
  const tiles = (rows: number): number => Math.ceil(rows / Math.floor(threads / sharing));
  if (Math.max(tiles(hidden), tiles(dim)) > most) return `more rows of weights than this device has workgroups (${most})`;
  return {
    name: "rows",
    passes,
    faults: { scratch: "work", ports: ["sorted", "blockExpert", "expertSlot"] },
    arrange: () => ({
      scratch,
      launches({ tokens: now }) {
        const assignments = (now as number) * topK;
        const checks = [
          { pass: "begin", workgroups: spread(assignments), words: [] },
          { pass: "claim", workgroups: spread(Math.max(capacity, experts)), words: [] },
          { pass: "settle", workgroups: spread(capacity), words: [] },
        ];
        if (assignments === 0) return checks;
        return [
          ...checks,
          { pass: "clear", workgroups: [Math.ceil(dim / threads), Math.min(assignments, most)] as [number, number], words: [] },
          { pass: "up", workgroups: [tiles(hidden), parts] as [number, number], words: [] },
          { pass: "down", workgroups: [tiles(dim), parts] as [number, number], words: [] },
        ];
      },
    }),
  };
}
