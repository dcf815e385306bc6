import { type KvTrace, TraceBuilder } from "./trace.js";

export interface AgentSettings {
  readonly seed: number;
  /** Sessions that arrive, one every 12 seconds on average. Default 400. */
  readonly sessions?: number;
}

/**
 * Requests as agents make them, for trials without a recorded trace. A session begins with one of three shared system
 * prompts (4 to 12 blocks) and a task of its own. Each request repeats all before it and adds 1 to 6 blocks. Most replies
 * end in a tool call, and the next request follows after seconds; the others end in an answer, after which the user
 * comes back in minutes or never. The same seed gives the same trace.
 */
export function agentSessions({ seed, sessions = 400 }: AgentSettings): KvTrace {
  const random = generator(seed);
  const wait = (mean: number): number => -mean * Math.log(1 - random());
  const below = (limit: number): number => Math.floor(random() * limit);
  const systemPrompts = [4, 8, 12];
  let fresh = 24;
  const waiting: { time: number; session: number; request: number; length: number; reply: string }[] = [];
  const blocks: number[][] = [];
  let arrival = 0;
  for (let session = 0; session < sessions; session++) {
    arrival += wait(12);
    const prompt = below(systemPrompts.length);
    const own = Array.from({ length: systemPrompts[prompt] as number }, (_, i) => i + (prompt ? 4 * 2 ** prompt - 4 : 0));
    const grow = (count: number): void => {
      for (let i = 0; i < count; i++) own.push(fresh++);
    };
    grow(2 + below(24));
    let time = arrival;
    for (let request = 0; ; request++) {
      const callsTool = random() < 0.8;
      waiting.push({ time, session, request, length: own.length, reply: callsTool ? "tool" : "answer" });
      if (!callsTool && random() < 0.55) break;
      time += callsTool ? wait(9) : 30 + wait(400);
      grow(1 + below(6));
    }
    blocks.push(own);
  }
  waiting.sort((a, b) => a.time - b.time || a.session - b.session || a.request - b.request);
  const builder = new TraceBuilder();
  for (const { session, length, reply } of waiting) {
    for (const block of (blocks[session] as number[]).slice(0, length)) builder.block(block);
    builder.end({ session, reply });
  }
  return builder.finish();
}

/** Numbers from 0 to 1 (mulberry32). */
function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
