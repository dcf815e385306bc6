/** Models that attend by a policy of full, anchor and reuse layers: the library, and `hotset run --policy`. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attention, createHotset, js, openModel, type ReuseAttention, readModel, reuseAttention } from "@hotset/core";
import { native } from "@hotset/kernels-native";
import { wasm } from "@hotset/kernels-wasm";
import { afterAll, describe, expect, it } from "vitest";
import { tinyModel, tinySizes, tinyTokenizer } from "./support/tiny-model.js";

const weights = fileURLToPath(new URL("../../../../shared/data/weights", import.meta.url));
const real = existsSync(`${weights}/stories260K.bin`);
const hotset = await createHotset({ backends: [() => native(), () => wasm(), js()] });
afterAll(() => hotset.dispose());

const bytes = tinyModel("a tiny model");
const tokenizer = tinyTokenizer();
const prompt = "abcd ".repeat(8);

/** A policy for so many layers: an anchor, a reuse layer, an anchor that is not renewed at each step, and so on. */
const policyText = (layers: number, k: number, other = {}): string =>
  JSON.stringify({
    layers: Array.from(
      { length: layers },
      (_, i) =>
        [
          { kind: "anchor", k },
          { kind: "reuse", source: i - 1 },
          { kind: "anchor", k, refreshEvery: 3 },
        ][i % 3],
    ),
    granularity: 4,
    sink: 2,
    recent: 4,
    ...other,
  });

/** The tokens that follow a prompt, with all layers dense or by a policy. */
async function decoded(source: Uint8Array, pieces: Uint8Array, backend: string, policy?: string, { from = [prompt], maxTokens = 60 } = {}) {
  let reuse: ReuseAttention | undefined;
  const model = await openModel(source, {
    tokenizer: pieces,
    hotset,
    backend,
    ...(policy === undefined
      ? {}
      : { attention: async (context) => (reuse = await reuseAttention(context, attention.parsePolicy(policy, context.config))) }),
  });
  const ids: number[][] = [];
  for (const text of from) {
    const own: number[] = [];
    for await (const { id } of model.tokens(text, { maxTokens })) own.push(id);
    ids.push(own);
  }
  model.dispose();
  return { ids, counters: reuse?.counters };
}

describe.each(["js", "native", "wasm"])("a model by a policy on %s", (backend) => {
  it("that lists everything gives the text of dense attention, and attends to lists", async () => {
    const dense = await decoded(bytes, tokenizer, backend);
    const { ids, counters } = await decoded(bytes, tokenizer, backend, policyText(3, tinySizes.context));
    expect(dense.ids[0]?.length).toBeGreaterThan(20);
    expect(ids).toEqual(dense.ids);
    // One step less than tokens: the last is not fed back. The prompt is in none of these.
    const steps = (ids[0]?.length as number) - 1 + (dense.ids[0]?.length === 60 ? 0 : 1);
    expect(counters).toMatchObject({ steps, denseRuns: 0, sparseActive: true });
    expect((counters?.anchorRuns as number) + (counters?.sparseRuns as number)).toBe(3 * steps);
    expect(counters?.tokensAttended).toBe(counters?.tokensVisible);
    expect(counters?.massKept).toBeCloseTo(1, 4);
  });

  it("that lists little attends to less, the same in each text", async () => {
    const { ids, counters } = await decoded(bytes, tokenizer, backend, policyText(3, 12), { from: [prompt, prompt] });
    expect(ids[1]).toEqual(ids[0]);
    expect(counters?.sparseActive).toBe(true);
    expect(counters?.tokensAttended).toBeLessThan(0.8 * (counters?.tokensVisible as number));
    expect(counters?.massKept).toBeLessThan(0.99);
    const js = await decoded(bytes, tokenizer, "js", policyText(3, 12), { from: [prompt, prompt] });
    expect({ ...counters, massKept: 0 }).toEqual({ ...js.counters, massKept: 0 });
    expect(ids).toEqual(js.ids);
  });

  it("leaves a prompt of one token, and a last part of one, to dense attention", async () => {
    const model = await openModel(bytes, { tokenizer, hotset, backend });
    const parts = `${"abcd ".repeat(15)}ab d`;
    expect(["", parts].map((text) => model.tokenizer.encode(text).length)).toEqual([1, 65]);
    model.dispose();
    const { counters } = await decoded(bytes, tokenizer, backend, policyText(3, 12), { from: ["", parts], maxTokens: 3 });
    expect(counters?.steps).toBe(4);
  });

  it("makes lists of its own for each text", async () => {
    // The lists of the first text, 35 tokens at last, could grow to the second's 39.
    const texts = [prompt, `${prompt}abcd `];
    const [first, second, both] = await Promise.all(
      [texts.slice(0, 1), texts.slice(1), texts].map((from) =>
        decoded(bytes, tokenizer, backend, policyText(3, 12), { from, maxTokens: 2 }),
      ),
    );
    expect(both?.ids).toEqual([...(first?.ids ?? []), ...(second?.ids ?? [])]);
    expect(first?.counters).toMatchObject({ steps: 1, anchorRuns: 2 });
    expect(both?.counters).toMatchObject({ steps: 2, anchorRuns: 4 });
  });

  it("is dense while the context is shorter than the policy's minContext", async () => {
    const { ids, counters } = await decoded(bytes, tokenizer, backend, policyText(3, 1, { minContext: 4096 }), { maxTokens: 12 });
    expect(ids).toEqual((await decoded(bytes, tokenizer, backend, undefined, { maxTokens: 12 })).ids);
    expect(counters).toMatchObject({ anchorRuns: 0, sparseRuns: 0, sparseActive: false });
  });

  it.skipIf(!real)("stories260K gives the text of dense attention for 200 tokens (needs ../shared/data/weights)", async () => {
    const [file, pieces] = [readFileSync(`${weights}/stories260K.bin`), readFileSync(`${weights}/tok512.bin`)];
    const { layers, context } = readModel(file).config;
    const settings = { from: [""], maxTokens: 200 };
    const { ids, counters } = await decoded(file, pieces, backend, policyText(layers, context), settings);
    expect(ids[0]?.length).toBe(200);
    expect(ids).toEqual((await decoded(file, pieces, backend, undefined, settings)).ids);
    expect(counters).toMatchObject({ steps: 199, sparseActive: true });
  });
});

it("a policy of another model is refused", async () => {
  const parsed = attention.parsePolicy(policyText(4, 8));
  const opened = openModel(bytes, { tokenizer, hotset, attention: (context) => reuseAttention(context, parsed) });
  await expect(opened).rejects.toThrow(/reuseAttention: policy: expected 3 layers, as the model has but received 4/);
});

describe("hotset run --policy", () => {
  const folder = mkdtempSync(join(tmpdir(), "hotset-policy-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const model = join(folder, "tiny.bin");
  writeFileSync(model, bytes);
  writeFileSync(join(folder, "tok300.bin"), tokenizer);
  const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
  const run = (policy: string | undefined, ...args: string[]) => {
    const path = join(folder, "policy.json");
    if (policy !== undefined) writeFileSync(path, policy);
    const options = policy === undefined ? [] : ["--policy", path];
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [command, "run", model, "--prompt", prompt, "--max-tokens", "30", "--backend", "js", ...options, ...args],
      { encoding: "utf8", env: { ...process.env, HOTSET_CACHE_DIR: folder }, timeout: 120_000 },
    );
    return { status, stdout, stderr };
  };

  it("shows what it did: on stderr, or in the JSON document", () => {
    const shown = run(policyText(3, 12));
    expect(shown.stderr).toMatch(
      /^policy: sparse attention active, \d+ of \d+ visible tokens attended \([\d.]+ %\), [\d.]+ % of the attention mass kept, \d+ anchor runs\n$/,
    );
    expect(shown.status).toBe(0);
    const all = JSON.parse(run(policyText(3, 128), "--json").stdout);
    const plain = JSON.parse(run(undefined, "--json").stdout);
    expect(all.text).toBe(plain.text);
    expect(plain.policy).toBeUndefined();
    expect(all.policy).toMatchObject({ sparseActive: true, denseRuns: 0, tokensAttended: all.policy.tokensVisible });
  });

  it("refuses damaged policies, and those of other models, in one line", () => {
    const refused = (message: RegExp, policy: string) => {
      const { status, stdout, stderr } = run(policy, "--json");
      expect([status, stdout]).toEqual([1, ""]);
      expect(stderr).toMatch(message);
      expect(stderr.trim().split("\n").length).toBe(1);
    };
    refused(/policy\.json: layers: expected 3 layers, as the model has but received 4/, policyText(4, 8));
    refused(/policy\.json: expected JSON but received/, policyText(3, 8).slice(0, 40));
    refused(
      /layers\[1\]\.headMap: expected a list of 2 heads/,
      '{"layers":[{"kind":"anchor","k":4},{"kind":"reuse","source":0,"headMap":[0]},{"kind":"full"}]}',
    );
    const { status, stderr } = run(undefined, "--policy", join(folder, "none.json"));
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(/^hotset: run: expected a file that can be read but received .*none\.json/),
    ]);
  });
});
