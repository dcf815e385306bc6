import { BlockNumbers, type KvTrace, maxReferences, TraceBuilder, tooLarge } from "../trace.js";
import { eachLine, finite, list, parsed, type TraceText, whole, wrong } from "./lines.js";

/** Ids of one 512-token block, when an id stands for 64 tokens. */
const grouped = 8;
/** Sessions start this many seconds apart, and no pause is longer than the second number. */
const [startsApart, longestPause] = [120, 600];
/** Ids of one request; more are refused, as a few bytes of a run-length list can claim any number. */
const maxIds = 2 ** 21;

interface Waiting {
  readonly time: number;
  readonly session: number;
  readonly request: number;
  readonly reply: string;
  readonly blocks: Int32Array;
}

/**
 * WEKA's agent sessions: one session a line, `{"id", "block_size", "requests": [...]}`. A request has `t` (seconds),
 * `stop` and its 64-token ids, either as `hash_ids` or as `keep` (how many ids of the request before it stay) and `add`
 * (`[first, count]` runs that follow them). Eight ids are one block of 512 tokens, known by all ids before its end; a
 * rest of fewer than eight is no block. Sub-agents are left out. Session i starts at 120 i seconds, pauses over 600 s
 * count as 600 s, and the requests of all sessions are merged by (time, session, request).
 */
export async function readWeka(text: TraceText, where = "weka trace"): Promise<KvTrace> {
  const waiting: Waiting[] = [];
  let [session, blocks, references] = [0, 0, 0];
  await eachLine(text, where, (line, number) => {
    const here = `${where}, line ${number}`;
    const { requests } = parsed(line, here);
    const chain = new Chain(() => blocks++);
    let [time, before, n] = [session * startsApart, 0, 0];
    for (const [index, entry] of list(requests, here, "requests").entries()) {
      const at = `${here}, request ${index}`;
      if (typeof entry !== "object" || entry === null) throw wrong(at, "an object", entry);
      const request = entry as Record<string, unknown>;
      if ("sub" in request || request.type === "subagent") continue;
      const t = finite(request.t, at, "t");
      if (n > 0) time += Math.min(longestPause, Math.max(0, t - before));
      before = t;
      chain.next(request, at);
      const used = chain.blocks();
      references += used.length;
      if (references > maxReferences) throw tooLarge(maxReferences, "block references");
      const reply = typeof request.stop === "string" ? request.stop : "";
      waiting.push({ time, session, request: n++, reply, blocks: used });
    }
    session++;
  });
  waiting.sort((a, b) => a.time - b.time || a.session - b.session || a.request - b.request);
  const builder = new TraceBuilder();
  for (const request of waiting) {
    for (const block of request.blocks) builder.block(block);
    builder.end({ session: request.session, reply: request.reply });
  }
  return builder.finish();
}

/** The ids of a session's current request and the blocks they make. */
class Chain {
  #ids = new Float64Array(64);
  #count = 0;
  #blocks: number[] = [];
  /** Blocks by parent and ids, within the session. */
  readonly #known = new BlockNumbers<string>();
  readonly #numbers: number[] = [];
  readonly #fresh: () => number;

  constructor(fresh: () => number) {
    this.#fresh = fresh;
  }

  blocks(): Int32Array {
    return Int32Array.from(this.#blocks);
  }

  next(request: Record<string, unknown>, where: string): void {
    let kept: number;
    if (request.hash_ids !== undefined) {
      const ids = list(request.hash_ids, where, "hash_ids");
      kept = 0;
      while (kept < ids.length && kept < this.#count && ids[kept] === this.#ids[kept]) kept++;
      this.#count = kept;
      for (let i = kept; i < ids.length; i++) this.#push(whole(ids[i], where, "hash_ids"), where);
    } else {
      kept = whole(request.keep, where, "keep");
      if (kept > this.#count) throw wrong(where, `keep: at most the ${this.#count} ids of the request before`, kept);
      this.#count = kept;
      for (const run of list(request.add, where, "add")) {
        const [first, count, ...rest] = list(run, where, "add").map((value) => whole(value, where, "add"));
        if (first === undefined || count === undefined || rest.length) throw wrong(where, "add: pairs of first and count", run);
        if (count > maxIds) throw wrong(where, `add: runs of at most ${maxIds} ids`, count);
        for (let i = 0; i < count; i++) this.#push(first + i, where);
      }
    }
    this.#blocks.length = Math.floor(kept / grouped);
    for (let at = this.#blocks.length; (at + 1) * grouped <= this.#count; at++) {
      const ids = this.#ids.subarray(at * grouped, (at + 1) * grouped);
      const known = this.#known.of(`${at ? this.#blocks[at - 1] : -1}:${ids.join()}`);
      if (known === this.#numbers.length) this.#numbers.push(this.#fresh());
      this.#blocks.push(this.#numbers[known] as number);
    }
  }

  #push(id: number, where: string): void {
    if (this.#count >= maxIds) throw wrong(where, `at most ${maxIds} ids in a request`, "more");
    if (this.#count === this.#ids.length) {
      const grown = new Float64Array(2 * this.#ids.length);
      grown.set(this.#ids);
      this.#ids = grown;
    }
    this.#ids[this.#count++] = id;
  }
}
