/** `hotset attention` over several texts, the divergence of the next token, and HShare's maps. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attention, createHotset, js, PolicyLoss, readModel } from "@hotset/core";
import { afterAll, describe, expect, it } from "vitest";
import { tinyModel, tinySizes, tinyTokenizer } from "./support/tiny-model.js";

const hotset = await createHotset({ backends: [js()] });
afterAll(() => hotset.dispose());
const bytes = tinyModel("a tiny model");
const tokenizer = tinyTokenizer();
const texts = ["abcd ".repeat(17), "dcba abcd ".repeat(6)] as const;
const { layers } = readModel(bytes).config;
const settings = {
  model: { layers, queryHeads: 4, kvHeads: 2, headDim: 8 },
  settings: { k: 6, ratio: 0, granularity: 1, sink: 1, recent: 2, perHead: true },
};
const alone = (k: number, layer: number) =>
  attention.onlySparse({ ...settings, settings: { ...settings.settings, k } } as unknown as attention.LayerProfile, layer);

describe("PolicyLoss.divergences", () => {
  it("are KL(dense || policy) of the probabilities that the model gives, token by token", async () => {
    const losses = await PolicyLoss.open(bytes, { hotset, tokenizer });
    const ids = texts.map((text) => losses.encode(text));
    const from = 30;
    const policies = [alone(6, 0), alone(tinySizes.context, 1), alone(6, layers - 1)];
    const told: string[] = [];
    const found = await losses.divergences(policies, { texts: ids, from }, (done, total) => told.push(`${done}/${total}`));
    expect(told).toEqual(["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]);
    const tokens = ids.reduce((sum, text) => sum + text.length - from, 0);
    for (const { values, mean, worst } of found) {
      expect(values.length).toBe(tokens);
      expect(mean).toBeCloseTo(values.reduce((a, b) => a + b, 0) / tokens, 10);
      expect(worst).toBe(Math.max(...values));
    }
    // The logits before the first token behind the prompt are of dense attention.
    expect(found[0]?.values[0]).toBe(0);
    // A list of everything has the bits of dense attention.
    expect(found[1]?.worst).toBe(0);
    expect(found[0]?.mean).toBeGreaterThan(1e-6);
    expect(found[0]?.mean).not.toBe(found[2]?.mean);
    // The same from the logits that the model has made before the last token of a text.
    const text = ids[0] as number[];
    const distribution = async (policy: attention.LayerPolicy | undefined): Promise<number[]> => {
      await losses.measure(policy, { texts: [text.slice(0, from + 4)], from });
      const logits = [...losses.model.forward.logits.data];
      const sum = Math.log(logits.reduce((all, logit) => all + Math.exp(logit), 0));
      return logits.map((logit) => logit - sum);
    };
    const [p, q] = [await distribution(undefined), await distribution(policies[0])];
    const wanted = p.reduce((sum, log, token) => sum + Math.exp(log) * (log - (q[token] as number)), 0);
    expect(Math.abs((found[0]?.values[3] as number) - wanted)).toBeLessThan(1e-5 + 1e-3 * wanted);
    losses.dispose();
  });

  it("are refused for texts without tokens behind the prompt", async () => {
    const losses = await PolicyLoss.open(bytes, { hotset, tokenizer });
    await expect(losses.divergences([alone(6, 0)], { texts: [[1, 2]], from: 2 })).rejects.toThrow(
      "PolicyLoss.divergences: texts[0]: expected 3 to",
    );
    await expect(losses.divergences([alone(6, 0)], { texts: [], from: 2 })).rejects.toThrow("a text at least");
    losses.dispose();
  });
});

describe("hotset attention, several texts", () => {
  const folder = mkdtempSync(join(tmpdir(), "hotset-texts-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const at = (name: string) => join(folder, name);
  writeFileSync(at("tiny.bin"), bytes);
  writeFileSync(at("tok300.bin"), tokenizer);
  for (const [i, text] of texts.entries()) writeFileSync(at(`${i}.txt`), text);
  const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [command, "attention", ...args], {
      encoding: "utf8",
      cwd: folder,
      env: { ...process.env, HOTSET_CACHE_DIR: folder },
      timeout: 120_000,
    });
  const fine = (...args: string[]): string => {
    const { status, stdout, stderr } = run(...args);
    expect([status, stderr]).toEqual([0, ""]);
    return stdout;
  };
  const lists = ["-k", "8", "--granularity", "1", "--sink", "1", "--recent", "2", "--backend", "js"];
  const read = (name: string) => attention.parseProfile(readFileSync(at(name), "utf8"));
  const both = ["--prompt-file", "0.txt", "--prompt-file", "1.txt"];

  it("profile: is that of each text, merged; policy merges profiles to the same", () => {
    for (const i of [0, 1]) fine("profile", "tiny.bin", "--prompt-file", `${i}.txt`, ...lists, "--out", `${i}.json`);
    const said = fine("profile", "tiny.bin", ...both, ...lists, "--texts", "worst", "--out", "worst.json");
    expect(said).toContain("(worst of 2 texts)");
    expect(read("worst.json")).toEqual(attention.mergeProfiles([read("0.json"), read("1.json")], "worst"));
    fine("profile", "tiny.bin", ...both, ...lists, "--out", "mean.json");
    expect(read("mean.json")).toEqual(attention.mergeProfiles([read("0.json"), read("1.json")]));
    const search = ["--search", "kascade", "--anchors", "2", "--json"];
    const merged = JSON.parse(fine("policy", "0.json", "1.json", ...search, "--out", "merged.policy"));
    const one = JSON.parse(fine("policy", "mean.json", ...search, "--out", "one.policy"));
    expect({ ...merged, out: "" }).toEqual({ ...one, out: "" });
    expect(JSON.parse(readFileSync(at("merged.policy"), "utf8")).about.profile).toBe("0.json, 1.json");
    const worst = JSON.parse(fine("policy", "0.json", "1.json", ...search, "--texts", "worst", "--out", "worst.policy"));
    expect(worst.kept.mean).toBeLessThan(merged.kept.mean);
  });

  it("profile --kl: what each layer alone does to the next token, in the file, the table and the page", async () => {
    const said = fine("profile", "tiny.bin", ...both, ...lists, "--kl", "--kl-tokens", "12", "--out", "kl.json", "--html", "kl.html");
    const { tokenKl } = read("kl.json");
    expect(tokenKl?.tokens).toBe(24);
    expect(tokenKl?.layers.length).toBe(layers);
    expect(said).toContain("mean and worst of 24 tokens");
    const page = readFileSync(at("kl.html"), "utf8");
    expect(page).toContain("What each layer does to the next token");
    expect(page).toContain("2 texts of at most");
    const losses = await PolicyLoss.open(bytes, { hotset, tokenizer });
    const policies = Array.from({ length: layers }, (_, layer) => attention.onlySparse(read("kl.json"), layer));
    const each = [];
    for (const text of texts) {
      const ids = losses.encode(text);
      each.push(await losses.divergences(policies, { texts: [ids], from: ids.length - 12 }));
    }
    losses.dispose();
    for (const [layer, { mean, worst }] of (tokenKl?.layers ?? []).entries()) {
      const own = each.map((found) => found[layer] as (typeof found)[number]);
      expect(mean).toBeCloseTo(((own[0]?.mean as number) + (own[1]?.mean as number)) / 2, 4);
      expect(worst).toBeCloseTo(Math.max(...own.map((found) => found.worst)), 4);
      expect(said).toContain(mean.toExponential(1));
    }
    const { sources } = JSON.parse(
      fine("policy", "kl.json", "--search", "hylra", "--threshold", "0", "--sensitive", "1", "--sensitive-by", "tokenKl", "--json"),
    );
    const means = (tokenKl?.layers ?? []).map(({ mean }) => mean);
    const most = means.indexOf(Math.max(...means));
    expect(sources[most]).toBe(most);
  });

  it("policy: imports a layer map of HShare", () => {
    writeFileSync(at("sharing_layer_2.json"), JSON.stringify({ "layer.share_config": [0, 1, 1, 0] }));
    expect(fine("policy", "sharing_layer_2.json", "--import", "hshare", "--out", "hshare.json")).toContain("a a 1 0");
    expect(JSON.parse(readFileSync(at("hshare.json"), "utf8"))).toMatchObject({ version: 2, about: { from: "hshare" } });
  });

  it.each([
    [["profile", "0.json", "--kl"], "expected --prompt-file FILE for a model"],
    [["profile", "tiny.bin", ...both, "--dump", "a.safetensors"], "--dump: expected one text"],
    [["profile", "tiny.bin", "--prompt", "a", "--kl", "-k", "4"], "texts[0]: expected"],
    [["policy", "0.json", "1.json", "--import", "ucm"], "--import: expected one file but received 2"],
    [["policy", "0.json", "0.txt", "--search", "hylra"], "0.txt: expected JSON"],
    [["policy", "0.json", "--search", "hylra", "--sensitive", "1", "--sensitive-by", "tokenKl"], "expected a profile with tokenKl"],
  ])("refuses %j in one line", (args, message) => {
    const { status, stdout, stderr } = run(...args, "--json");
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n").length).toBe(1);
  });
});

const weights = fileURLToPath(new URL("../../../../shared/data/weights", import.meta.url));

describe.skipIf(!existsSync(`${weights}/stories260K.bin`))("stories260K (needs ../shared/data/weights)", () => {
  it("is moved most by the layers whose lists lose most, and not at all by lists of everything", async () => {
    const file = readFileSync(`${weights}/stories260K.bin`);
    const losses = await PolicyLoss.open(file, { hotset, tokenizer: readFileSync(`${weights}/tok512.bin`) });
    const story = losses.encode(
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. " +
        "She wanted to play with it, but it was too high. Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do.",
    );
    const of = (k: number) =>
      Array.from({ length: 5 }, (_, layer) =>
        attention.onlySparse({ model: { layers: 5 }, settings: { ...settings.settings, k } } as unknown as attention.LayerProfile, layer),
      );
    const from = story.length - 24;
    const [few, all] = [
      await losses.divergences(of(8), { texts: [story], from }),
      await losses.divergences(of(512), { texts: [story], from }),
    ];
    losses.dispose();
    for (const { worst } of all) expect(worst).toBe(0);
    for (const { mean, worst } of few) {
      expect(mean).toBeGreaterThan(0);
      expect(worst).toBeGreaterThanOrEqual(mean);
      expect(mean).toBeLessThan(1);
    }
  });
});
