/** logits/logprob: chunks of rows, and windows of rows, for logits/logprob.wgsl. */
import { type AnyAxes, HotsetError, type KernelRequest } from "@hotset/core/backend";
import { faultBytes } from "../faults.js";
import { bindingAlign } from "../flags.js";
import type { Arrangement, DeviceFacts, Launch, Pass, Program } from "../program.js";

type Axes = Record<"tokens" | "vocab" | "k", number>;

/** Logits of a workgroup, at least. */
const chunkTokens = 4096;
/** Chunks of a row, and entries of their lists, at most: one workgroup joins them. */
const mostChunks = 64;
const joinEntries = 8192;
/** Bytes of lists and states that are worth a window of rows of its own. */
const workBytes = 64 << 20;
const stateWords = 8;

export function logprob({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, vocab, k } = axes as Axes;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupStorageSize: room, tunables } = facts;
  const { threads } = tunables;
  const held = 2 ** Math.ceil(Math.log2(Math.max(tunables.results, k)));
  // Room for another round of appends, where there is some.
  const capacity = [2 * threads, threads].map((spare) => held + spare).find((size) => 8 * size + 16 * threads + 64 <= room);
  if (capacity === undefined) return `a list of ${k} does not fit ${room} bytes of workgroup memory`;
  if (4 * vocab + bindingAlign > limit) return `a row of logits takes ${4 * vocab} bytes, more than one binding of this device (${limit})`;
  if (4 * tokens * Math.max(1, k) > limit) return `best takes ${4 * tokens * k} bytes, more than one binding of this device (${limit})`;

  const compares = variant.against === true;
  const flags = [...(compares ? ["compares"] : []), ...(k > 0 ? ["ranks"] : [])];
  if (k > 0 && facts.features.has("subgroups")) flags.push("subgroups");
  const pass = (entry: string, bindings: Pass["bindings"]): Pass => ({
    pieces: ["gen/params", "lib/float", ...(k > 0 ? ["lib/top-k"] : []), "logits/logprob"],
    flags,
    entry,
    constants: { workgroup_threads: threads, top_capacity: capacity },
    bindings: { uniforms: 0, logits: 1, work: 3, ...bindings },
  });
  return {
    name: "chunks",
    passes: {
      measure: pass("measure", compares ? { against: 2 } : {}),
      finish: pass("finish", { targets: 4, chosen: 5, entropy: 6, ...(k > 0 ? { ids: 7, best: 8 } : {}), ...(compares ? { kl: 9 } : {}) }),
    },
    faults: { scratch: "work", ports: ["targets"] },
    arrange: () => arrange(axes as Axes, facts),
  };
}

/** Chunks do not depend on the tokens, so that a row gives the same bits alone. */
function arrange({ tokens, vocab, k }: Axes, facts: DeviceFacts): Arrangement {
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const wanted = Math.min(mostChunks, Math.max(2, Math.floor(joinEntries / Math.max(1, k))), Math.ceil(vocab / chunkTokens));
  const chunk = Math.ceil(vocab / wanted);
  const chunks = Math.ceil(vocab / chunk);
  const perRow = 4 * chunks * (stateWords + 2 * k);
  const byWork = Math.floor((Math.min(limit, Math.max(workBytes, faultBytes + perRow)) - faultBytes) / perRow);
  const rowWindow = Math.min(byWork, Math.floor((limit - bindingAlign) / (4 * vocab)));
  if (rowWindow < 1)
    throw new HotsetError("unsupported", {
      where: "webgpu: logits/logprob",
      expected: `scratch of at most ${limit} bytes`,
      received: `${perRow} bytes a row`,
      hint: "Ask for fewer best tokens, or use a backend that has no such limit.",
    });
  const held = Math.min(rowWindow, Math.max(1, tokens));

  function launches(actual: AnyAxes): Launch[] {
    const out: Launch[] = [];
    for (let first = 0; first < (actual.tokens as number); first += rowWindow) {
      const rows = Math.min(rowWindow, (actual.tokens as number) - first);
      const start = 4 * first * vocab;
      const offset = Math.floor(start / bindingAlign) * bindingAlign;
      const range = { offset, bytes: start - offset + 4 * rows * vocab };
      const shared = {
        words: [first, rows, (start - offset) / 4, chunks, chunk, rows * chunks * stateWords],
        ranges: { logits: range, against: range },
      };
      out.push({ pass: "measure", workgroups: [chunks, Math.min(most, rows)], ...shared });
      out.push({ pass: "finish", workgroups: [Math.min(most, rows), 1], ...shared });
    }
    return out;
  }

  return { scratch: { work: faultBytes + held * perRow }, launches };
}
