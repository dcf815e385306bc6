/** Attention recorded from running models, losses of policies, and the commands `hotset attention profile` and `policy`. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attention, createHotset, js, openModel, PolicyLoss, type RecordedAttention, readModel, recordAttention } from "@hotset/core";
import { zipSync } from "fflate";
import { afterAll, describe, expect, it } from "vitest";
import { tinyModel, tinySizes, tinyTokenizer } from "./support/tiny-model.js";

const hotset = await createHotset({ backends: [js()] });
afterAll(() => hotset.dispose());
const bytes = tinyModel("a tiny model");
const tokenizer = tinyTokenizer();
const text = "abcd ".repeat(17);
const { layers } = readModel(bytes).config;

async function recorded(...texts: string[]): Promise<attention.AttentionRecord> {
  let recorder: RecordedAttention | undefined;
  const model = await openModel(bytes, {
    hotset,
    tokenizer,
    attention: async (context) => {
      recorder = await recordAttention(context);
      return recorder;
    },
  });
  for (const one of texts) for await (const _ of model.tokens(one, { maxTokens: 4 }));
  const record = (recorder as RecordedAttention).record("tiny");
  model.dispose();
  return record;
}

describe("recordAttention", () => {
  it("keeps what each layer attended with: its outputs follow from its queries, keys and values", async () => {
    const record = await recorded(text);
    const { tokens } = record;
    // Parts of 64 tokens, a rest, and generated tokens one by one, of which the last is not fed back.
    expect(tokens).toBeGreaterThan(64 + 3);
    expect(record.layers.length).toBe(layers);
    const profile = await attention.profileLayers(record, { firstQuery: 0, queries: tokens, k: 8, granularity: 1 });
    for (const { denseError } of profile.layers) expect(denseError).toBeLessThan(1e-5);
  });

  it("begins again with each text", async () => {
    const [both, alone] = [await recorded("dcba ".repeat(12), text), await recorded(text)];
    expect(both).toEqual(alone);
  });

  it("has nothing to give before a text was read", async () => {
    await expect(recorded()).rejects.toThrow("recordAttention: tokens: expected a whole number of at least 1");
  });
});

describe("PolicyLoss", () => {
  const policy = (k: number) =>
    attention.parsePolicy({
      layers: Array.from({ length: layers }, (_, i) => (i === 0 ? { kind: "anchor", k } : { kind: "reuse", source: 0 })),
      granularity: 1,
      recent: 2,
    });

  it("is the loss of decoding: that of dense attention where lists hold everything, another where they do not", async () => {
    const losses = await PolicyLoss.open(bytes, { hotset, tokenizer });
    const texts = [losses.encode(text), losses.encode("dcba abcd ".repeat(6))];
    const dense = await losses.measure(undefined, { texts, from: 20 });
    expect(dense.tokens).toBe((texts[0]?.length as number) + (texts[1]?.length as number) - 40);
    expect(dense.counters).toBeUndefined();
    const all = await losses.measure(policy(tinySizes.context), { texts, from: 20 });
    expect([...all.losses]).toEqual([...dense.losses]);
    expect(all.counters).toMatchObject({ sparseActive: true, denseRuns: 0 });
    const few = await losses.measure(policy(3), { texts, from: 20 });
    expect(few.loss).not.toBeCloseTo(dense.loss, 3);
    expect(few.losses[0]).toBe(dense.losses[0]);
    // Back to dense attention, and to the probabilities that the model gives.
    expect((await losses.measure(undefined, { texts, from: 20 })).loss).toBe(dense.loss);
    const { forward } = losses.model;
    const ids = texts[0] as number[];
    forward.begin(ids.length);
    forward.run(ids.slice(0, 30));
    const weights = Array.from(forward.logits.data, Math.exp);
    const wanted = -Math.log((weights[ids[30] as number] as number) / weights.reduce((a, b) => a + b, 0));
    expect(dense.losses[10]).toBeCloseTo(wanted, 4);
    losses.dispose();
  });

  it("refuses texts that are too short, or longer than the context", async () => {
    const losses = await PolicyLoss.open(bytes, { hotset, tokenizer });
    await expect(losses.measure(undefined, { texts: [[1, 2]], from: 2 })).rejects.toThrow("texts[0]: expected 3 to 128 tokens");
    await expect(losses.measure(undefined, { texts: [], from: 2 })).rejects.toThrow("a text at least");
    await expect(losses.measure(undefined, { texts: [[1, 2]], from: 0 })).rejects.toThrow("at least 1");
    losses.dispose();
  });
});

describe("hotset attention", () => {
  const folder = mkdtempSync(join(tmpdir(), "hotset-attention-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const at = (name: string) => join(folder, name);
  writeFileSync(at("tiny.bin"), bytes);
  writeFileSync(at("tok300.bin"), tokenizer);
  writeFileSync(at("text.txt"), text);
  const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
  const run = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], {
      encoding: "utf8",
      cwd: folder,
      env: { ...process.env, HOTSET_CACHE_DIR: folder },
      timeout: 120_000,
    });
    return { status, stdout, stderr };
  };
  const fine = (...args: string[]): string => {
    const { status, stdout, stderr } = run(...args);
    expect([status, stderr]).toEqual([0, ""]);
    return stdout;
  };
  const lists = ["-k", "8", "--granularity", "1", "--sink", "1", "--recent", "2"];
  const json = (...args: string[]) => JSON.parse(fine(...args, "--json"));
  const model = ["tiny.bin", "--prompt-file", "text.txt", "--backend", "js"];
  fine("attention", "profile", ...model, ...lists, "--dump", "record.safetensors", "--html", "profile.html");

  it("profile: of a model and of its dump are the same; a page beside it that needs nothing else", () => {
    const profile = attention.parseProfile(readFileSync(at("profile.json"), "utf8"));
    expect(profile.model).toMatchObject({ name: "tiny.bin", layers });
    expect(profile.settings).toMatchObject({ k: 8, granularity: 1, sink: 1, recent: 2, perHead: true });
    const document = json("attention", "profile", "record.safetensors", ...lists, "--out", "again.json");
    expect(readFileSync(at("again.json"), "utf8")).toBe(readFileSync(at("profile.json"), "utf8"));
    expect(document).toMatchObject({ out: "again.json", model: profile.model, layers: profile.layers });
    const page = readFileSync(at("profile.html"), "utf8");
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).not.toMatch(/<script|https?:|src=|@import|url\(/);
    expect(page.match(/<svg/g)?.length).toBe(5);
    for (const needed of ["Recovered mass", "Overlap", "The policy", "prefers-color-scheme: dark"]) expect(page).toContain(needed);
    const { mass } = attention.pairOf(profile, 0, 1);
    expect(page).toContain(
      `layer 1 with the list of 0: ${((100 * mass.reduce((sum, row) => sum + Math.max(...row), 0)) / mass.length).toFixed(1)} %`,
    );
  });

  it("profile: of a .npz", async () => {
    const record = await attention.readRecord(readFileSync(at("record.safetensors")));
    const npy = (shape: number[], data: Float32Array): Uint8Array => {
      const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`.padEnd(117, " ");
      const file = new Uint8Array(128 + data.byteLength);
      file.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, 118, 0]);
      file.set(new TextEncoder().encode(`${header}\n`), 10);
      new Float32Array(file.buffer, 128).set(data);
      return file;
    };
    const { tokens, queryHeads, kvHeads, headDim } = record;
    const files = Object.fromEntries(
      record.layers.flatMap(({ queries, keys }, i) => [
        [`q${i}.npy`, npy([tokens, queryHeads, headDim], queries)],
        [`k${i}.npy`, npy([tokens, kvHeads, headDim], keys)],
      ]),
    );
    const archive = zipSync({ ...files, "notes.npy": new Uint8Array(3) });
    writeFileSync(at("record.npz"), archive);
    const { pairs } = json("attention", "profile", "record.npz", ...lists, "--out", "npz.json");
    const wanted = attention.parseProfile(readFileSync(at("profile.json"), "utf8")).pairs;
    expect(pairs.map(({ mass }: attention.PairStatistics) => mass)).toEqual(wanted.map(({ mass }) => mass));
    writeFileSync(at("cut.npz"), archive.subarray(0, archive.length - 30));
    expect(run("attention", "profile", "cut.npz")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("cut.npz: expected a .npz archive"),
    });
  });

  it.each([
    ["hylra", ["--threshold", "0.5"]],
    ["ucm", ["--resets", "1"]],
    ["kascade", ["--anchors", "2", "--attends", "list", "--full", "0"]],
    ["pairs", ["--merges", "1", "--no-head-maps"]],
    ["greedy", ["--anchors", "2", "--model", "tiny.bin", "--text-file", "text.txt", "--backend", "js"]],
    ["kascade", ["--anchors", "1", "--repair", "0", "--model", "tiny.bin", "--text-file", "text.txt", "--backend", "js"]],
  ])("policy: %s gives one that `hotset run` takes", (search, more) => {
    const document = json("attention", "policy", "profile.json", "--search", search, ...more, "--html", "policy.html");
    const policy = attention.parsePolicy(readFileSync(at("policy.json"), "utf8"), { layers, kvHeads: 2 });
    expect(document.policy).toEqual(policy);
    expect(document.cost.share).toBe(attention.policyCost(policy, document.cost.context).share);
    expect(document.kept.mean).toBeGreaterThan(0);
    if (more.includes("--model")) expect(document.loss.policy).toBeGreaterThan(0);
    if (more.includes("--repair")) expect(document.steps.at(-1).loss).toBeLessThanOrEqual(document.loss.dense);
    expect(readFileSync(at("policy.html"), "utf8")).toContain("<svg");
    expect(run("run", "tiny.bin", "--prompt", text, "--backend", "js", "--max-tokens", "8", "--policy", "policy.json")).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^policy: /),
    });
  });

  it("policy: imports, and says what is lost", () => {
    writeFileSync(
      at("config.json"),
      JSON.stringify({ num_hidden_layers: 4, index_topk: 64, index_topk_freq: 2, index_skip_topk_offset: 1 }),
    );
    const said = fine("attention", "policy", "config.json", "--import", "indexer", "--out", "imported.json");
    expect(said).toContain("a 0 a 2");
    expect(said).toContain("Not in the policy:\n- An indexer");
    const file = JSON.parse(readFileSync(at("imported.json"), "utf8"));
    expect(file).toMatchObject({ version: 2, about: { from: "indexer", notExpressed: [expect.stringContaining("indexer")] } });
    expect(attention.parsePolicy(file).layers.length).toBe(4);
  });

  it.each([
    [["profile", "tiny.bin"], "expected --prompt-file FILE for a model"],
    [["profile", "none.safetensors"], "none.safetensors: expected a file that can be read"],
    [["profile", "text.txt", "--prompt", "a"], "hotset: "],
    [["profile", "record.safetensors", "-k", "0"], "k: expected a whole number from 1"],
    [["profile", "record.safetensors", "-k", "many"], '-k: expected a number but received "many"'],
    [["policy", "profile.json"], "expected --search or --import, one of them"],
    [["policy", "profile.json", "--search", "ucm"], "expected --resets N for this search"],
    [["policy", "profile.json", "--search", "kascade", "--anchors", "9"], "anchors: expected a whole number from 1 to 3 but received 9"],
    [["policy", "profile.json", "--search", "greedy", "--anchors", "1"], "expected --model MODEL and --text-file FILE"],
    [["policy", "profile.json", "--search", "hylra", "--own", "7"], "expected layers from 0 to 2 but received 7"],
    [["policy", "text.txt", "--search", "hylra"], "text.txt: expected JSON"],
    [["policy", "config2.json", "--search", "hylra"], "config2.json: expected format, version, model"],
    [["policy", "cut.json", "--search", "hylra"], "cut.json: expected JSON"],
    [["policy", "text.txt", "--import", "duo"], "text.txt: expected a line break"],
    [["policy", "text.txt", "--import", "kascade"], "text.txt: expected a .npy file"],
    [["policy", "profile.json", "--search", "hylra", "--out", "none/policy.json"], "expected to write none/policy.json"],
  ])("refuses %j in one line", (args, message) => {
    writeFileSync(at("config2.json"), '{"num_hidden_layers": 4}');
    writeFileSync(at("cut.json"), readFileSync(at("profile.json"), "utf8").slice(0, 300));
    const { status, stdout, stderr } = run("attention", ...args, "--json");
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n").length).toBe(1);
  });
});

const weights = fileURLToPath(new URL("../../../../shared/data/weights", import.meta.url));

describe.skipIf(!existsSync(`${weights}/stories260K_qkv512.npz`))("stories260K (needs ../shared/data/weights)", () => {
  it("has the overlaps that an independent programme found, and the layers that mass and overlap choose", () => {
    const folder = mkdtempSync(join(tmpdir(), "hotset-stories-"));
    const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
    const out = join(folder, "profile.json");
    const lists = ["--shared", "-k", "32", "--granularity", "1", "--recent", "1", "--first", "256", "--queries", "256"];
    const { status } = spawnSync(process.execPath, [
      command,
      "attention",
      "profile",
      `${weights}/stories260K_qkv512.npz`,
      ...lists,
      "--out",
      out,
    ]);
    expect(status).toBe(0);
    const profile = attention.parseProfile(readFileSync(out, "utf8"));
    rmSync(folder, { recursive: true });
    // Top 32 of 256 positions, pooled over heads; the last token is forced here.
    const wanted = [0.548, 0.385, 0.494, 0.454, 0.504, 0.623, 0.559, 0.599, 0.502, 0.589];
    for (const [i, { overlap }] of profile.pairs.entries())
      expect(Math.abs((overlap[0]?.[0] as number) - (wanted[i] as number))).toBeLessThan(0.02);
    const anchors = (measure: attention.Measure) =>
      attention.anchorsOf(attention.searchKascade(attention.profileSimilarity(profile, { measure }), { anchors: 2 }).sources);
    expect([anchors("overlap"), anchors("mass")]).toEqual([
      [0, 1],
      [0, 2],
    ]);
  });
});
