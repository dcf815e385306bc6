/**
 * What policies cost a real model in loss: `node bench/dist/policy-loss.js [--data DIR] [--k 32] [--stories 8] [--backend ID]`.
 * The model is DIR/weights/stories260K.bin. It writes texts of 512 tokens by itself (at --temperature, 1, a seed each); layers are
 * profiled on one, greedy and repair measure their loss on four more, and the change of loss against dense attention is
 * measured on others, which no search has seen, at tokens 256 to 511. Lists are per KV head and once for all heads; granules of
 * one token, sink 4, recent 16.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { attention, findHotset, openModel, PolicyLoss, type RecordedAttention, readModel, recordAttention } from "hotset";

const { values } = parseArgs({
  options: {
    data: { type: "string", default: fileURLToPath(new URL("../../../shared/data", import.meta.url)) },
    k: { type: "string", default: "32,64" },
    stories: { type: "string", default: "8" },
    temperature: { type: "string", default: "1" },
    backend: { type: "string", default: "native" },
    json: { type: "boolean", default: false },
  },
});
const folder = join(values.data, "weights");
if (!existsSync(join(folder, "stories260K.bin"))) {
  console.error(`policy-loss: expected ${folder}/stories260K.bin, but it is not there. Pass --data DIR.`);
  process.exit(1);
}
const hotset = await findHotset();
const loaded = readModel(readFileSync(join(folder, "stories260K.bin")));
const settings = { hotset, backend: values.backend, tokenizer: readFileSync(join(folder, "tok512.bin")) };
const from = 256;
const temperature = Number(values.temperature);

/** Token ids of a text that the model writes. */
async function written(seed: number): Promise<number[]> {
  const model = await openModel(loaded, settings);
  const ids = model.tokenizer.encode("");
  // The end of a story is a token like others here: the next one follows.
  for (let part = 0; ids.length < model.context; part++) {
    let count = 0;
    for await (const { id } of model.tokens("", { temperature, seed: 1000 * seed + part, maxTokens: model.context - ids.length })) {
      if (id >= 0) ids.push(id);
      count++;
    }
    if (count === 0) throw new Error("policy-loss: the model wrote nothing");
  }
  model.dispose();
  return ids.slice(0, loaded.config.context);
}

const texts: number[][] = [];
for (let seed = 1; seed <= 5 + Number(values.stories); seed++) texts.push(await written(seed));
const [seen, unseen] = [texts.slice(0, 5), texts.slice(5)];

/** The profile of the first text. */
async function profiled(list: attention.MeasureSettings): Promise<attention.LayerProfile> {
  let recorded: RecordedAttention | undefined;
  const model = await openModel(loaded, {
    ...settings,
    attention: async (context) => {
      recorded = await recordAttention(context);
      return recorded;
    },
  });
  const text = seen[0] as number[];
  model.forward.begin(text.length);
  for (let t = 0; t < text.length; t += model.forward.chunk) model.forward.run(text.slice(t, t + model.forward.chunk));
  const record = (recorded as RecordedAttention).record("stories260K");
  model.dispose();
  return attention.profileLayers(record, { ...list, firstQuery: from, queries: 256 });
}

const losses = await PolicyLoss.open(loaded, settings);
const dense = await losses.measure(undefined, { texts: unseen, from });
const calibration = await losses.measure(undefined, { texts: seen.slice(1), from });
console.log(
  `Dense: ${dense.loss.toFixed(4)} nats a token over ${dense.tokens} tokens of ${unseen.length} texts, on ${losses.model.backend}.`,
);

interface Row {
  readonly name: string;
  readonly k: number;
  readonly perHead: boolean;
  readonly policy: string;
  readonly rise: number;
  readonly standardError: number;
  readonly cost: number;
  readonly kept: number;
}
const rows: Row[] = [];

for (const k of values.k.split(",").map(Number))
  for (const perHead of [false, true]) {
    const profile = await profiled({ k, granularity: 1, sink: 4, recent: 16, perHead });
    const { layers } = profile.model;
    const row = async (name: string, policy: attention.LayerPolicy): Promise<void> => {
      const found = await losses.measure(policy, { texts: unseen, from });
      const rises = found.losses.map((loss, i) => loss - (dense.losses[i] as number));
      const rise = rises.reduce((sum, value) => sum + value, 0) / rises.length;
      const variance = rises.reduce((sum, value) => sum + (value - rise) ** 2, 0) / (rises.length - 1);
      const { share } = attention.policyCost(policy, 384);
      const { mean } = attention.keptMass(profile, policy);
      const line = attention.policyLine(policy);
      rows.push({ name, k, perHead, policy: line, rise, standardError: Math.sqrt(variance / rises.length), cost: share, kept: mean });
    };
    const compiled = (sources: readonly number[], more: attention.CompileSettings = {}) =>
      attention.compilePolicy(profile, sources, { headMaps: false, ...more });
    const all = Array.from({ length: layers }, (_, layer) => layer);
    const on = (policy: attention.LayerPolicy) => losses.measure(policy, { texts: seen.slice(1), from });
    await row("own lists everywhere", compiled(all, { attends: "list" }));
    await row("own lists but layer 0", compiled(all, { attends: "list", full: [0] }));
    await row("{0,1}: by overlap", compiled([0, 1, 1, 1, 1]));
    await row("{0,2}: by mass", compiled([0, 0, 2, 2, 2]));
    await row("{0,2}, lists attended", compiled([0, 0, 2, 2, 2], { attends: "list", full: [0] }));
    await row("{0,1,3}", compiled([0, 1, 1, 3, 3]));
    await row("{0,1,3,4}", compiled([0, 1, 1, 3, 4]));
    await row("F F 1 1 F", compiled([0, 1, 1, 1, 4]));
    await row("{0}", compiled([0, 0, 0, 0, 0]));
    for (const anchors of [2, 3])
      for (const measure of ["mass", "overlap", "rnmse"] as const) {
        const similarity = attention.profileSimilarity(profile, { measure, headMaps: false });
        await row(`kascade ${anchors}, ${measure}`, compiled(attention.searchKascade(similarity, { anchors }).sources));
      }
    const mass = attention.profileSimilarity(profile, { headMaps: false });
    await row("hylra .85, mass", compiled(attention.searchHylra(mass, { threshold: 0.85 }).sources));
    await row("ucm 2 resets, mass", compiled(attention.searchUcm(mass, { resets: 2 }).sources));
    await row("pairs 2 merges, mass", compiled(attention.searchPairs(mass, { merges: 2 }).sources));
    const loss = async (sources: readonly number[]) => (await on(compiled(sources))).loss;
    for (const anchors of [3, 2]) {
      const greedy = await attention.searchGreedy(loss, { layers, anchors });
      await row(`greedy ${anchors} (${greedy.evaluations} runs)`, compiled(greedy.sources));
    }
    const start = attention.searchKascade(mass, { anchors: 2 }).sources;
    const repaired = await attention.repairPlan(start, loss, { maxLoss: calibration.loss + 0.02 });
    await row(`kascade 2, repaired (${repaired.evaluations} runs)`, compiled(repaired.sources));
    if (perHead) {
      const mapped = attention.profileSimilarity(profile);
      await row("{0,1}, head maps", compiled([0, 1, 1, 1, 1], { headMaps: true }));
      for (const anchors of [2, 3])
        await row(
          `kascade ${anchors}, mass, head maps`,
          compiled(attention.searchKascade(mapped, { anchors }).sources, { headMaps: true }),
        );
    }
  }
losses.dispose();
hotset.dispose();
if (values.json) console.log(JSON.stringify({ dense: dense.loss, tokens: dense.tokens, rows }, null, 2));
else
  for (const { name, k, perHead, policy, rise, standardError, cost, kept } of rows)
    console.log(
      `k ${k}  ${perHead ? "head " : "layer"}  ${name.padEnd(30)} ${policy}  ${rise.toFixed(4).padStart(8)} +- ${standardError.toFixed(4)}  reads ${(100 * cost).toFixed(0).padStart(3)} %  kept ${kept.toFixed(3)}`,
    );
