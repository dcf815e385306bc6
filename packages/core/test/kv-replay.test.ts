import { describe, expect, it } from "vitest";
import {
  agentSessions,
  halfOf,
  type KvTrace,
  type ReplayPolicy,
  type ReplaySemantics,
  readTrace,
  replay,
  replayPolicies,
  TraceBuilder,
} from "../src/kv-cache/index.js";
import { Random } from "../src/testing/random.js";
import { type NaiveTrace, naiveReplay } from "./naive-replay.js";

const semantics: readonly ReplaySemantics[] = ["flat", "prefix", "req"];

/** Requests that go on from earlier ones, start anew, or are any blocks in any order, some of them twice. */
function randomTrace(random: Random, requests: number, longest: number): NaiveTrace {
  const chained = random.uniform() < 0.6;
  const variety = 1 + random.below(4 * longest);
  const trace: NaiveTrace = { requests: [], replies: [] };
  let fresh = 0;
  for (let r = 0; r < requests; r++) {
    const length = random.below(longest + 1);
    let blocks = Array.from({ length }, () => (chained ? fresh++ : random.below(variety)));
    if (chained && r > 0 && random.uniform() < 0.7) {
      const before = trace.requests[random.below(r)] as number[];
      blocks = [...before.slice(0, random.below(before.length + 1)), ...blocks].slice(0, 2 * longest);
    }
    trace.requests.push(blocks);
    trace.replies.push(random.below(4));
  }
  return trace;
}

/** Blocks are numbered as they are, so that "the larger number" means the same in both programs. */
function built({ requests, replies }: NaiveTrace): KvTrace {
  const builder = new TraceBuilder();
  for (const [r, blocks] of requests.entries()) {
    for (const block of blocks) builder.block(block);
    builder.end(replies[r] ? { reply: `way ${replies[r]}` } : {});
  }
  const trace = builder.finish();
  // Ways are numbered in order of appearance by the builder, and by their own number in the naive program.
  return trace.reply ? { ...trace, reply: Uint8Array.from(replies) } : trace;
}

const hitsOf = (trace: KvTrace, policy: ReplayPolicy, capacity: number, of: ReplaySemantics, leafSafe = false): number =>
  replay(trace, { policy, capacity, semantics: of, leafSafe }).hits;

describe("the replay against a naive one", () => {
  for (const policy of replayPolicies)
    it(`${policy}: equal integers on random traces, all semantics`, () => {
      const random = new Random(`replay ${policy}`);
      for (let n = 0; n < 1000; n++) {
        const naive = randomTrace(random, 1 + random.below(14), 1 + random.below(7));
        const trace = built(naive);
        for (const of of semantics) {
          const capacity = random.pick([1, 2, 3, 4, 5, 8, 10, 13, 20, 200]);
          const expected = naiveReplay(naive, policy, capacity, of);
          expect(hitsOf(trace, policy, capacity, of), `trace ${n}, ${of}, capacity ${capacity}: ${JSON.stringify(naive)}`).toBe(expected);
        }
      }
    });

  it("hazard: equal integers on traces long enough to learn from and to lead", () => {
    const random = new Random("long");
    let better = 0;
    for (let n = 0; n < 4; n++) {
      // Short visits between two that come back: LRU loses those, hazard learns to keep them.
      const naive: NaiveTrace = { requests: [], replies: [] };
      for (let r = 0; r < 700; r++) {
        const visitor = r % 4 ? 1000 + r * 8 : 8 * ((r >> 2) % (5 + n));
        naive.requests.push(Array.from({ length: 5 + random.below(3) }, (_, i) => visitor + i));
        naive.replies.push(n % 2 ? random.below(3) : 0);
      }
      const trace = built(naive);
      for (const of of n === 0 ? semantics : (["flat"] as const)) {
        const hits = hitsOf(trace, "hazard", 40, of);
        expect(hits).toBe(naiveReplay(naive, "hazard", 40, of));
        if (hits > hitsOf(trace, "lru", 40, of)) better++;
      }
    }
    expect(better).toBeGreaterThan(3);
  });
});

describe("laws of the replay", () => {
  const random = new Random("laws");
  const traces = Array.from({ length: 60 }, () => built(randomTrace(random, 40, 8)));

  it("no policy beats Belady block by block, and with bypass it is no worse", () => {
    for (const trace of traces)
      for (const capacity of [1, 3, 9, 27]) {
        const best = hitsOf(trace, "belady-bypass", capacity, "flat");
        const forced = hitsOf(trace, "belady", capacity, "flat");
        expect(best).toBeGreaterThanOrEqual(forced);
        for (const policy of replayPolicies)
          if (policy !== "belady-bypass") expect(hitsOf(trace, policy, capacity, "flat"), policy).toBeLessThanOrEqual(forced);
      }
  });

  it("LRU and Belady never lose by a larger cache; a cache for all misses each block once", () => {
    for (const trace of traces) {
      for (const policy of ["lru", "belady"] as const)
        for (const of of ["flat", "prefix"] as const)
          for (let capacity = 1; capacity < 20 && of === "flat"; capacity++)
            expect(hitsOf(trace, policy, capacity + 1, of)).toBeGreaterThanOrEqual(hitsOf(trace, policy, capacity, of));
      for (const policy of replayPolicies)
        expect(hitsOf(trace, policy, Math.max(1, trace.unique), "flat")).toBe(trace.references - new Set(trace.blocks).size);
    }
  });

  it("leaf-safe: what is resident has resident parents, so all semantics agree on chained ids", () => {
    for (let n = 0; n < 60; n++) {
      const naive = randomTrace(new Random(`leaf ${n}`), 60, 8);
      const chained = naive.requests.every((blocks) => blocks.every((block, i) => parentOf(naive, block) === (blocks[i - 1] ?? -1)));
      const trace = built(naive);
      for (const policy of replayPolicies)
        for (const capacity of [1, 2, 7, 20]) {
          const [flat, prefix, req] = semantics.map((of) => hitsOf(trace, policy, capacity, of, true));
          expect(prefix).toBe(req);
          if (chained) expect(flat).toBe(prefix);
          else expect(flat).toBeGreaterThanOrEqual(prefix as number);
        }
    }
  });

  it("hazard on made-up agents: nowhere below LRU, better at small sizes, more so when it knows how replies ended", () => {
    for (const seed of [11]) {
      const trace = agentSessions({ seed, sessions: 500 });
      expect(agentSessions({ seed, sessions: 500 })).toEqual(trace);
      for (const of of semantics)
        for (const percent of [1, 2, 5, 10, 20, 50]) {
          const capacity = Math.floor((trace.unique * percent) / 100);
          const hits = (policy: ReplayPolicy, hints: boolean) => replay(trace, { policy, capacity, semantics: of, hints }).hits;
          const [lru, plain, hinted] = [hits("lru", false), hits("hazard", false), hits("hazard", true)];
          expect(Math.min(plain, hinted)).toBeGreaterThanOrEqual(lru);
          if (percent === 1) {
            if (of === "flat") expect(plain).toBeGreaterThan(1.03 * lru);
            expect(hinted).toBeGreaterThan(1.03 * lru);
          }
        }
    }
  });

  it("hazard is LRU, hit for hit, where it has seen too little", () => {
    for (const trace of traces)
      for (const of of semantics)
        for (const capacity of [1, 4, 16]) expect(hitsOf(trace, "hazard", capacity, of)).toBe(hitsOf(trace, "lru", capacity, of));
  });

  it("refuses a capacity that is none and a policy it does not know", () => {
    const trace = traces[0] as KvTrace;
    for (const capacity of [0, -1, 1.5, Number.NaN])
      expect(() => replay(trace, { policy: "lru", capacity })).toThrow(/expected a capacity of at least 1 block but received/);
    expect(() => replay(trace, { policy: "mru" as "lru", capacity: 3 })).toThrow(/expected a policy of lru, fifo.* but received "mru"/);
  });
});

function parentOf({ requests }: NaiveTrace, block: number): number {
  for (const blocks of requests) if (blocks.includes(block)) return blocks[blocks.indexOf(block) - 1] ?? -1;
  return -1;
}

describe("readers", () => {
  const requestsOf = (trace: KvTrace) =>
    Array.from({ length: trace.requests }, (_, r) => [...trace.blocks.slice(trace.offsets[r], trace.offsets[r + 1])]);

  it("mooncake: in the file's order, larger ids have larger numbers", async () => {
    const text = '{"timestamp":9,"hash_ids":[7,30]}\n\n{"timestamp":0,"hash_ids":[7,12,7]}\r\n{"hash_ids":[]}';
    expect(requestsOf(await readTrace([text], "mooncake"))).toEqual([[0, 2], [0, 1, 0], []]);
    const pieces = [...text].map((character) => character);
    expect(await readTrace(pieces, "mooncake")).toEqual(await readTrace([text], "mooncake"));
  });

  it("ragpulse: by time, equal times as in the file, ids in the order of their kinds", async () => {
    const row = (timestamp: string, ids: object, session: string) => JSON.stringify({ timestamp, hash_ids: ids, session_id: session });
    const text = [row("20", { a: [5], b: [], c: [1, 2] }, "x"), row("3", { a: [5] }, "y"), row("20.0", { c: [9], a: [5] }, "x")].join("\n");
    const trace = await readTrace([text], "ragpulse");
    expect(requestsOf(trace)).toEqual([[2], [2, 0, 1], [3, 2]]);
    expect([...(trace.sessions as Int32Array)]).toEqual([0, 1, 1]);
  });

  it("libcachesim: with a header or none", async () => {
    for (const text of ["time,object,size\n1,8,100\n2,3,1\n3,8,100\n", "1,8,100\n2,3,1\n3,8,100"])
      expect(requestsOf(await readTrace([text], "libcachesim"))).toEqual([[1], [0], [1]]);
    expect(requestsOf(await readTrace(["1,b,1\n2,a,1\n3,b,1"], "libcachesim"))).toEqual([[0], [1], [0]]);
    expect(requestsOf(await readTrace(["1,18446744073709551615,1\n2,18446744073709551614,1"], "libcachesim"))).toEqual([[0], [1]]);
  });

  it("weka: eight ids are a block, both forms agree, sessions are merged by their own clock", async () => {
    const ids = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);
    const session = (requests: object[]) => JSON.stringify({ id: "s", block_size: 64, requests });
    const full = session([
      { t: 5, stop: "tool_use", hash_ids: ids(1, 17) },
      { type: "subagent", requests: [{ t: 0, hash_ids: ids(900, 8) }] },
      { t: 100, stop: "end_turn", hash_ids: [...ids(1, 16), ...ids(40, 9)] },
      { t: 5000, stop: "", hash_ids: [...ids(1, 12), ...ids(70, 12)] },
    ]);
    const short = session([
      { t: 5, stop: "tool_use", keep: 0, add: [[1, 17]] },
      { sub: "x", requests: [] },
      { t: 100, stop: "end_turn", keep: 16, add: [[40, 9]] },
      { t: 5000, stop: "", keep: 12, add: [[70, 12]] },
    ]);
    const one = await readTrace([full], "weka");
    expect(requestsOf(one)).toEqual([
      [0, 1],
      [0, 1, 2],
      [0, 3, 4],
    ]);
    expect(await readTrace([short], "weka")).toEqual(one);
    expect([[...(one.reply as Uint8Array)], one.replies]).toEqual([
      [1, 2, 0],
      ["tool_use", "end_turn"],
    ]);
    // The second session starts at 120 s; the pause of 4900 s counts as 600 s, so its last request comes after all.
    const two = await readTrace([`${full}\n${short}`], "weka");
    expect([...(two.sessions as Int32Array)]).toEqual([0, 0, 1, 1, 0, 1]);
    expect(two.unique).toBe(10);
  });

  it("a damaged trace names its line, whatever is wrong with it", async () => {
    const refused = (text: string, format: "mooncake" | "weka" | "ragpulse" | "libcachesim", message: RegExp) =>
      expect(readTrace([text], format, "file"), text).rejects.toThrow(message);
    await refused('{"hash_ids":[1]}\n{"hash_ids":[1', "mooncake", /^file, line 2: expected one JSON object but received/);
    await refused("[1]", "mooncake", /file, line 1: expected one JSON object/);
    await refused('{"hash_ids":7}', "mooncake", /expected hash_ids: an array but received 7/);
    await refused('{"hash_ids":[1.5]}', "mooncake", /expected hash_ids: a whole number from 0 but received 1.5/);
    await refused('{"hash_ids":[9007199254740993]}', "mooncake", /a whole number from 0/);
    await refused('{"timestamp":"soon","hash_ids":{"a":[1]}}', "ragpulse", /expected timestamp: a number but received "soon"/);
    await refused(
      '{"timestamp":1,"hash_ids":{}}\n{"timestamp":1,"hash_ids":[]}',
      "ragpulse",
      /line 2: expected hash_ids: an object of arrays/,
    );
    await refused("1,2,3\n1,2", "libcachesim", /line 2: expected time,object,size but received "1,2"/);
    await refused("time,object,size\ntime,object,size", "libcachesim", /line 2: expected time,object,size/);
    const weka = (request: object) => JSON.stringify({ requests: [request] });
    await refused(weka({ t: 0, keep: 3, add: [] }), "weka", /request 0: expected keep: at most the 0 ids of the request before/);
    await refused(weka({ t: 0, keep: 0, add: [[1, 1e12]] }), "weka", /add: runs of at most 2097152 ids/);
    await refused(weka({ t: 0, keep: 0, add: Array(9).fill([1, 1e6]) }), "weka", /at most 2097152 ids in a request/);
    await refused(weka({ t: 0, keep: 0, add: [[1]] }), "weka", /pairs of first and count/);
    await refused(weka({ t: null, keep: 0, add: [] }), "weka", /expected t: a number but received null/);
    await refused("{}", "weka", /expected requests: an array but received nothing/);
  });

  it("text cut or changed anywhere gives a trace or a FormatError, nothing else", async () => {
    const good = {
      mooncake: '{"timestamp":0,"hash_ids":[1,2,3]}\n{"hash_ids":[1,2,9]}\n',
      weka: `${JSON.stringify({ requests: [{ t: 0, stop: "tool_use", keep: 0, add: [[1, 20]] }] })}\n`,
      ragpulse: '{"timestamp":"3","hash_ids":{"a":[1,2],"b":[3]},"session_id":"q"}\n',
      libcachesim: "time,object,size\n1,a,2\n2,b,3\n",
    };
    const random = new Random("damage");
    for (const [format, text] of Object.entries(good) as [keyof typeof good, string][]) {
      const outcome = (changed: string) =>
        readTrace([changed], format).then(
          () => "read",
          (error) => error.name as string,
        );
      for (let cut = 0; cut < text.length; cut++) expect(["read", "FormatError"]).toContain(await outcome(text.slice(0, cut)));
      for (let n = 0; n < 2500; n++) {
        const characters = [...text];
        for (let k = random.below(4); k >= 0; k--)
          characters[random.below(characters.length)] = random.pick([
            '"',
            "{",
            "}",
            "[",
            "]",
            ",",
            "9",
            "-",
            "e",
            "\n",
            "\u0000",
            "",
            "😀",
          ]);
        expect(["read", "FormatError"]).toContain(await outcome(characters.join("")));
      }
    }
  });

  it("halves by session hold every request once", () => {
    const builder = new TraceBuilder();
    for (let r = 0; r < 200; r++) {
      builder.block(r % 7);
      builder.block(10 + (r % 40));
      builder.end({ session: r % 40 });
    }
    const trace = builder.finish();
    const [first, second] = [halfOf(trace, 0), halfOf(trace, 1)];
    expect(first.requests + second.requests).toBe(200);
    const sessions = (half: KvTrace) => new Set(half.sessions);
    for (const session of sessions(first)) expect(sessions(second).has(session)).toBe(false);
    expect(Math.min(sessions(first).size, sessions(second).size)).toBeGreaterThan(10);
  });
});
