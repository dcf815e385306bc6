/** Models whose cache forgets: the library, and `hotset run --evict`. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createHotset, denseAttention, type EvictionSettings, js, kvCache, type Model, openModel } from "@hotset/core";
import { native } from "@hotset/kernels-native";
import { wasm } from "@hotset/kernels-wasm";
import { afterAll, describe, expect, it } from "vitest";
import { PlainModel } from "./support/plain-model.js";
import { tinyModel, tinySizes, tinyTokenizer } from "./support/tiny-model.js";

const weights = fileURLToPath(new URL("../../../../shared/data/weights", import.meta.url));
const real = existsSync(`${weights}/stories260K.bin`);
const hotset = await createHotset({ backends: [() => native(), () => wasm(), js()] });
afterAll(() => hotset.dispose());

const bytes = tinyModel("a tiny model");
const tokenizer = tinyTokenizer();
const { layers, kvHeads, heads, dim } = tinySizes;
const headDim = dim / heads;
const short = "ab abc";
/** More than a chunk of 64 tokens. */
const long = "abcd ".repeat(18);

const open = (backend: string, eviction?: EvictionSettings, source = bytes, pieces = tokenizer) =>
  openModel(source, { tokenizer: pieces, hotset, backend, eviction });

async function ids(model: Model, prompt: string, maxTokens = 60): Promise<number[]> {
  const made: number[] = [];
  for await (const { id } of model.tokens(prompt, { maxTokens })) if (id >= 0) made.push(id);
  return made;
}

/** Each page of the cache is in use once, or free; free ones hold NaN afterwards: whoever reads one is found out. */
function poisonFree({ forward: { cache } }: Model): void {
  const used = [...cache.pageTable.data.subarray(0, cache.pagesInUse)];
  expect(new Set(used).size).toBe(Math.ceil(cache.length / cache.pageSize));
  expect(used.every((page) => page >= 0 && page < cache.pages)).toBe(true);
  for (const { data } of [...cache.keys, ...cache.values]) {
    const each = data.length / cache.pages;
    for (let page = 0; page < cache.pages; page++) if (!used.includes(page)) data.fill(Number.NaN, page * each, (page + 1) * each);
  }
}

describe.each(["js", "native", "wasm"])("a model that forgets on %s", (backend) => {
  it.each(["streaming-llm", "snapkv"] as const)("%s of all the context gives the text of a whole cache", async (method) => {
    for (const prompt of [short, long]) {
      const [model, plain] = [await open(backend, { method, budget: tinySizes.context }), await open(backend)];
      const wanted = await ids(plain, prompt);
      expect(wanted.length).toBeGreaterThan(10);
      expect(await ids(model, prompt)).toEqual(wanted);
      expect(model.forward.evicted).toMatchObject({ evictions: 0, tokensEvicted: 0, pagesFreed: 0, cachePages: 8, contextPages: 8 });
      for (const one of [model, plain]) one.dispose();
    }
  });

  it.each([
    [short, 12, 4],
    [short, 17, 0],
    [long, 33, 4],
  ])("StreamingLLM after %j sees the first tokens and the last: budget %i, %i sinks", async (prompt, budget, sinks) => {
    const model = await open(backend, { method: "streaming-llm", budget, sinks });
    const input = model.tokenizer.encode(prompt);
    // Tokens enter by parts: 64 of the prompt at a time, then one by one.
    const sees = (position: number, token: number) => {
      const part = position < input.length ? position - (position % 64) : position;
      return token < sinks || token >= part - (budget - 1 - sinks);
    };
    const wanted = new PlainModel(bytes).greedy(input, 40, sees);
    for (let text = 0; text < 2; text++) {
      const made: number[] = [];
      for await (const { id } of model.tokens(prompt, { maxTokens: 40 })) {
        if (id >= 0) made.push(id);
        poisonFree(model);
      }
      expect(made.length).toBeGreaterThan(15);
      expect(made).toEqual(wanted.slice(0, made.length));
    }
    expect(wanted).not.toEqual(new PlainModel(bytes).greedy(input, 40));
    const { evictions, tokensEvicted, peakPages, cachePages } = model.forward.evicted as NonNullable<typeof model.forward.evicted>;
    expect(model.forward.cache.length).toBe(budget);
    expect([evictions > 20, tokensEvicted > 20]).toEqual([true, true]);
    expect(cachePages).toBe(Math.ceil((budget - 1 + 64) / 16));
    expect(peakPages).toBe(Math.ceil((prompt === short ? budget : 64) / 16));
    model.dispose();
  });

  it("SnapKV keeps what the window attends to, in each layer and head, and decodes over that", async () => {
    const [window, budget, kernel] = [9, 30, 3];
    const seen: Float32Array[] = Array.from({ length: layers }, () => new Float32Array());
    const plain = await openModel(bytes, {
      tokenizer,
      hotset,
      backend,
      attention: async (context) => {
        const dense = await denseAttention(context);
        return {
          ...dense,
          attend(layer, tokens, ofPrompt) {
            if (ofPrompt) seen[layer] = Float32Array.from([...(seen[layer] ?? []), ...context.queries.data.subarray(0, tokens * dim)]);
            dense.attend(layer, tokens, ofPrompt);
          },
        };
      },
    });
    const text = "abcd ".repeat(17);
    const prompt = plain.tokenizer.encode(text);
    const length = prompt.length;
    // The window lies in both parts of the prompt.
    expect(Math.abs(length - window / 2 - 64)).toBeLessThan(window / 2);
    await ids(plain, text, 1);
    const rows = (model: Model, of: "keys" | "values", layer: number, head: number, tokens: Iterable<number>) =>
      Array.from(tokens, (t) => {
        const { cache } = model.forward;
        const at = (((cache.pageTable.data[Math.floor(t / 16)] as number) * kvHeads + head) * 16 + (t % 16)) * headDim;
        return [...(cache[of][layer]?.data.subarray(at, at + headDim) ?? [])];
      });
    const all = Array.from({ length }, (_, t) => t);
    const kept = seen.map((queries, layer) => {
      const keys = Array.from({ length: kvHeads }, (_, head) => rows(plain, "keys", layer, head, all)).flat(2);
      const last = queries.subarray((length - window) * dim, length * dim);
      const masses = kvCache.snapKvMasses({ queries: last, keys, window, queryHeads: heads, kvHeads, headDim, length });
      return kvCache.snapKv({ masses, length, kvHeads, budget, window, kernel });
    });
    const keptOf = (layer: number, head: number) => [...(kept[layer]?.kept.subarray(head * budget, (head + 1) * budget) ?? [])];
    expect(new Set(kept.map(({ kept }) => kept.join())).size).toBe(layers);

    const model = await open(backend, { method: "snapkv", budget, window, kernel });
    const made: number[] = [];
    for await (const { id } of model.tokens(text, { maxTokens: 40 })) {
      if (made.length === 0) {
        expect(model.forward.cache.length).toBe(budget);
        for (let layer = 0; layer < layers; layer++)
          for (let head = 0; head < kvHeads; head++)
            for (const of of ["keys", "values"] as const)
              expect(rows(model, of, layer, head, all.slice(0, budget))).toEqual(rows(plain, of, layer, head, keptOf(layer, head)));
      }
      poisonFree(model);
      if (id >= 0) made.push(id);
    }
    const wanted = new PlainModel(bytes).greedy(
      prompt,
      40,
      (position, token, layer, head) => position < length || token >= length || keptOf(layer, head).includes(token),
    );
    expect(made.length).toBeGreaterThan(10);
    expect(made).toEqual(wanted.slice(0, made.length));
    expect(model.forward.evicted).toMatchObject({
      evictions: 1,
      tokensEvicted: length - budget,
      pagesFreed: Math.ceil(length / 16) - 2,
      peakPages: Math.ceil(length / 16),
    });
    // Freed pages take the generated tokens.
    expect(model.forward.evicted?.pages).toBe(Math.ceil(model.forward.cache.length / 16));
    for (const one of [model, plain]) one.dispose();
  });

  it.skipIf(!real)("stories260K gives the text of a whole cache, and goes on beyond a budget (needs ../shared/data/weights)", async () => {
    const [file, pieces] = [readFileSync(`${weights}/stories260K.bin`), readFileSync(`${weights}/tok512.bin`)];
    const plain = await open(backend, undefined, file, pieces);
    const wanted = await ids(plain, "", 200);
    for (const method of ["streaming-llm", "snapkv"] as const) {
      const model = await open(backend, { method, budget: 512 }, file, pieces);
      expect(await ids(model, "", 200)).toEqual(wanted);
      model.dispose();
    }
    const model = await open(backend, { method: "streaming-llm", budget: 64 }, file, pieces);
    const input = model.tokenizer.encode("");
    const sees = (position: number, token: number) => token < 4 || token >= position - 59;
    expect(await ids(model, "", 120)).toEqual(new PlainModel(file).greedy(input, 120, sees));
    expect(model.forward.evicted).toMatchObject({ cachePages: 8, contextPages: 32, peakPages: 4 });
    for (const one of [model, plain]) one.dispose();
  });
});

it("refuses what leaves no room", async () => {
  const refused = (eviction: EvictionSettings, message: RegExp) => expect(open("js", eviction)).rejects.toThrow(message);
  await refused(
    { method: "streaming-llm", budget: 5 },
    /streaming-llm: expected budget to be a whole number of at least 6: the 4 sinks, a token behind them, and the newest but received 5/,
  );
  await refused({ method: "streaming-llm", budget: 6.5 }, /a whole number/);
  await refused({ method: "streaming-llm", budget: 6, sinks: -1 }, /sinks to be/);
  await refused({ method: "snapkv", budget: 31 }, /snapkv: expected budget to be a whole number of at least 32: the window/);
  await refused({ method: "snapkv", budget: 31, window: 4, kernel: 4 }, /kernel to be odd/);
  await refused({ method: "h2o", budget: 31 } as never, /method "streaming-llm" or "snapkv"/);
  const both = openModel(bytes, { tokenizer, hotset, attention: denseAttention, eviction: { method: "snapkv", budget: 40 } });
  await expect(both).rejects.toThrow(/attention or eviction/);
});

describe("hotset run --evict", () => {
  const folder = mkdtempSync(join(tmpdir(), "hotset-evict-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const model = join(folder, "tiny.bin");
  writeFileSync(model, bytes);
  writeFileSync(join(folder, "tok300.bin"), tokenizer);
  const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [command, "run", model, "--prompt", long, "--max-tokens", "30", "--backend", "js", ...args],
      { encoding: "utf8", env: { ...process.env, HOTSET_CACHE_DIR: folder }, timeout: 120_000 },
    );
    return { status, stdout, stderr };
  };

  it("shows what it did: on stderr, or in the JSON document", () => {
    const { status, stderr } = run("--evict", "snapkv", "--budget", "40");
    expect([status, stderr]).toEqual([
      0,
      expect.stringMatching(
        /^snapkv: \d+ tokens evicted in 1 eviction, \d+ pages freed, \d+ in use and \d+ at most; the cache is [\d.]+ KiB, one for the whole context [\d.]+ KiB\n$/,
      ),
    ]);
    const { text } = JSON.parse(run("--json").stdout);
    expect(JSON.parse(run("--json", "--evict", "streaming-llm", "--budget", "128").stdout).text).toBe(text);
    const { eviction } = JSON.parse(run("--json", "--evict", "streaming-llm", "--budget", "20").stdout);
    expect(eviction).toMatchObject({ method: "streaming-llm", budget: 20, pages: 2, cachePages: 6, contextPages: 8 });
    expect(eviction.cacheBytes).toBe(6 * 16 * 2 * layers * kvHeads * headDim * 4);
  });

  it("refuses bad settings in one line", () => {
    const refused = (message: RegExp, ...args: string[]) => {
      const { status, stdout, stderr } = run("--json", ...args);
      expect([status, stdout]).toEqual([1, ""]);
      expect(stderr).toMatch(message);
    };
    refused(
      /^hotset: openModel: streaming-llm: expected budget .* of at least 6.* but received 3\n$/,
      "--evict",
      "streaming-llm",
      "--budget",
      "3",
    );
    refused(/^hotset: --evict: expected --budget, the tokens that stay\n$/, "--evict", "snapkv");
    refused(/^hotset: --budget: expected --evict/, "--budget", "30");
    refused(/^hotset: --budget: expected a number/, "--evict", "snapkv", "--budget", "few");
    refused(/^hotset: --evict: expected no --policy/, "--evict", "snapkv", "--budget", "40", "--policy", "x.json");
    refused(/Allowed choices are snapkv, streaming-llm/, "--evict", "h2o", "--budget", "40");
  });
});
