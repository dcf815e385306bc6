import { type KvTrace, requestsOf } from "./trace.js";

/**
 * The requests of one half of the sessions (0 or 1), by a hash of the session. Where a trace has no sessions, requests
 * with the same second block are one (the first is often the same for all).
 */
export function halfOf(trace: KvTrace, half: 0 | 1): KvTrace {
  return requestsOf(trace, (r) => {
    const [from, to] = [trace.offsets[r] as number, trace.offsets[r + 1] as number];
    const session = trace.sessions?.[r] ?? (to > from ? (trace.blocks[Math.min(from + 1, to - 1)] as number) : 0);
    return (mixed(session) & 1) === half;
  });
}

/** murmur3's finaliser: every bit of the number moves every bit of the result. */
function mixed(number: number): number {
  let h = number | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
