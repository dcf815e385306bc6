import { FormatError } from "../../errors.js";

/** Requests and the blocks they use, as typed arrays. Blocks are numbers `0 .. unique - 1`. */
export interface KvTrace {
  readonly requests: number;
  readonly references: number;
  readonly unique: number;
  /** `[references]` the blocks of all requests, in order, the first block of each first. */
  readonly blocks: Int32Array;
  /** `[requests + 1]` where the blocks of each request begin. */
  readonly offsets: Int32Array;
  /** `[requests]` which session each request belongs to, where the trace says so. */
  readonly sessions?: Int32Array;
  /** `[requests]` how each reply ended: 0 is unknown, `n` is `replies[n - 1]`. */
  readonly reply?: Uint8Array;
  readonly replies?: readonly string[];
}

/** References that fit into one trace: its arrays stay below a few GB. */
export const maxReferences = 2 ** 28;
/** Ids that a Map can hold. */
const maxIds = 2 ** 24 - 1;

/** What is thrown where a trace is larger than that. */
export const tooLarge = (limit: number, what: string): FormatError =>
  new FormatError({ where: "trace", expected: `at most ${limit} ${what}`, received: "more", hint: "Replay a part of the file." });

/** A number for each id that was seen, in order of appearance. */
export class BlockNumbers<Id extends number | string> {
  readonly #numbers = new Map<Id, number>();

  get count(): number {
    return this.#numbers.size;
  }
  of(id: Id): number {
    let number = this.#numbers.get(id);
    if (number === undefined) {
      number = this.#numbers.size;
      if (number === maxIds) throw tooLarge(maxIds, "different blocks");
      this.#numbers.set(id, number);
    }
    return number;
  }
  /** `[count]` the rank of each id among all, by value: larger numbers are then larger ids. */
  ranks(): Int32Array {
    const ranks = new Int32Array(this.#numbers.size);
    const sorted = [...this.#numbers].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [rank, [, number]] of sorted.entries()) ranks[number] = rank;
    return ranks;
  }
}

export interface RequestFacts {
  /** Any number that is the same for all requests of a session. */
  readonly session?: number;
  /** How the reply ended, in the trace's own word. */
  readonly reply?: string;
}

/** Collects requests into a KvTrace. The arrays grow by doubling. */
export class TraceBuilder {
  #blocks = new Int32Array(1 << 12);
  #references = 0;
  readonly #offsets: number[] = [0];
  readonly #sessions: number[] = [];
  readonly #reply: number[] = [];
  readonly #replies: string[] = [];
  #largest = -1;

  /** Adds one block of the request that is being built. */
  block(block: number): void {
    if (this.#references === this.#blocks.length) {
      if (this.#references >= maxReferences) throw tooLarge(maxReferences, "block references");
      const grown = new Int32Array(2 * this.#blocks.length);
      grown.set(this.#blocks);
      this.#blocks = grown;
    }
    this.#blocks[this.#references++] = block;
    if (block > this.#largest) this.#largest = block;
  }

  /** Ends the request whose blocks were added. */
  end({ session, reply }: RequestFacts = {}): void {
    this.#offsets.push(this.#references);
    this.#sessions.push(session ?? -1);
    if (reply && !this.#replies.includes(reply) && this.#replies.length < 255) this.#replies.push(reply);
    this.#reply.push(reply ? this.#replies.indexOf(reply) + 1 : 0);
  }

  /** `ranks`, where given, is the final number of each block: see BlockNumbers. */
  finish(ranks?: Int32Array): KvTrace {
    const blocks = this.#blocks.slice(0, this.#references);
    if (ranks) for (let i = 0; i < blocks.length; i++) blocks[i] = ranks[blocks[i] as number] as number;
    return {
      requests: this.#sessions.length,
      references: blocks.length,
      unique: this.#largest + 1,
      blocks,
      offsets: Int32Array.from(this.#offsets),
      ...(this.#sessions.some((session) => session >= 0) ? { sessions: Int32Array.from(this.#sessions) } : {}),
      ...(this.#replies.length ? { reply: Uint8Array.from(this.#reply), replies: this.#replies } : {}),
    };
  }
}

/** The trace of some requests only, with its blocks numbered anew in the same order. */
export function requestsOf(trace: KvTrace, keep: (request: number) => boolean): KvTrace {
  const used = new Uint8Array(trace.unique);
  const kept: number[] = [];
  for (let r = 0; r < trace.requests; r++) {
    if (!keep(r)) continue;
    kept.push(r);
    for (let i = trace.offsets[r] as number; i < (trace.offsets[r + 1] as number); i++) used[trace.blocks[i] as number] = 1;
  }
  const numbers = new Int32Array(trace.unique);
  let unique = 0;
  for (let block = 0; block < trace.unique; block++) if (used[block]) numbers[block] = unique++;
  const offsets = new Int32Array(kept.length + 1);
  for (const [k, r] of kept.entries())
    offsets[k + 1] = (offsets[k] as number) + (trace.offsets[r + 1] as number) - (trace.offsets[r] as number);
  const blocks = new Int32Array(offsets[kept.length] as number);
  for (const [k, r] of kept.entries()) {
    const from = trace.offsets[r] as number;
    for (let i = offsets[k] as number, j = from; i < (offsets[k + 1] as number); i++, j++)
      blocks[i] = numbers[trace.blocks[j] as number] as number;
  }
  return {
    requests: kept.length,
    references: blocks.length,
    unique,
    blocks,
    offsets,
    ...(trace.sessions ? { sessions: Int32Array.from(kept, (r) => (trace.sessions as Int32Array)[r] as number) } : {}),
    ...(trace.reply && trace.replies
      ? { reply: Uint8Array.from(kept, (r) => (trace.reply as Uint8Array)[r] as number), replies: trace.replies }
      : {}),
  };
}
