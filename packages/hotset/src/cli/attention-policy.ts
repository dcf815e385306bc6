/** `hotset attention policy`: from a profile, or a file of another system, to a policy.json. */
import { basename } from "node:path";
import { attention, PolicyLoss } from "@hotset/core";
import { findHotset } from "../discover.js";
import { policyPage } from "./attention-page.js";
import { numberOf, percent, write } from "./attention-profile.js";
import { read } from "./attention-source.js";
import type { CommonOptions } from "./index.js";
import { findModel, text as readText } from "./model-files.js";
import { print } from "./output.js";

export const searches = ["hylra", "ucm", "kascade", "pairs", "greedy"] as const;
export const importFormats = ["ucm", "kascade", "indexer", "hshare", "minference", "duo"] as const;

export interface PolicyOptions extends CommonOptions {
  readonly search?: (typeof searches)[number];
  readonly import?: (typeof importFormats)[number];
  readonly threshold: string;
  readonly resets?: string;
  readonly anchors?: string;
  readonly merges?: string;
  readonly measure: attention.Measure;
  readonly heads: "mean" | "min";
  readonly headMaps: boolean;
  readonly own?: string;
  readonly sensitive?: string;
  readonly sensitiveBy: attention.Sensitivity;
  readonly texts: "mean" | "worst";
  readonly full?: string;
  readonly attends: "all" | "list";
  readonly minContext: string;
  readonly refreshEvery: string;
  readonly context?: string;
  readonly model?: string;
  readonly tokenizer?: string;
  readonly backend?: string;
  readonly textFile?: string;
  readonly from?: string;
  readonly maxLoss?: string;
  readonly repair?: string;
  readonly out: string;
  readonly html?: string;
}

export async function policyCommand(paths: readonly string[], options: PolicyOptions): Promise<void> {
  if ((options.search === undefined) === (options.import === undefined))
    throw new Error("attention policy: expected --search or --import, one of them");
  if (options.import === undefined) return searchProfile(paths, options);
  if (paths.length > 1) throw new Error(`--import: expected one file but received ${paths.length}`);
  importFile(paths[0] as string, options.import, options);
}

function importFile(path: string, format: (typeof importFormats)[number], options: PolicyOptions): void {
  const { json, out } = options;
  if (options.html !== undefined) throw new Error("--html: expected --search: an imported policy has no profile to show");
  const found = imported(path, format);
  const about = { from: format, file: basename(path), ...(found.model ? { model: found.model } : {}), notExpressed: found.notExpressed };
  write(out, attention.formatPolicy(found.policy, about));
  const { policy, notExpressed } = found;
  const cost = attention.policyCost(policy, options.context === undefined ? 32768 : numberOf("--context", options.context));
  const document = { out, ...found, counts: attention.policyCounts(policy), line: attention.policyLine(policy), cost };
  print(json, document, () =>
    [...describe(policy, cost), "", "Not in the policy:", ...notExpressed.map((line) => `- ${line}`), "", `Written: ${out}`].join("\n"),
  );
}

function imported(path: string, format: (typeof importFormats)[number]): attention.ImportedPolicy {
  const where = basename(path);
  if (format === "kascade") {
    const array = attention.readNpy(read(path), where);
    return attention.importKascade({ shape: array.shape, data: attention.npyNumbers(array, where) }, { where });
  }
  const text = new TextDecoder().decode(read(path));
  if (format === "duo") return attention.importDuo(text, { where });
  const importers = {
    ucm: attention.importUcm,
    indexer: attention.importIndexer,
    hshare: attention.importHshare,
    minference: attention.importMInference,
  };
  return importers[format](text, where);
}

async function searchProfile(paths: readonly string[], options: PolicyOptions): Promise<void> {
  const { json, out, html, search = "hylra" } = options;
  const profile = attention.mergeProfiles(
    paths.map((path) => attention.parseProfile(readText(path), path)),
    options.texts,
  );
  const compile = (sources: readonly number[]) =>
    attention.compilePolicy(profile, sources, {
      attends: options.attends,
      headMaps: options.headMaps,
      full: listOf("--full", options.full),
      minContext: numberOf("--min-context", options.minContext),
      refreshEvery: numberOf("--refresh-every", options.refreshEvery),
    });
  const similarity = attention.profileSimilarity(profile, options);
  const own = [
    ...listOf("--own", options.own),
    ...(options.sensitive === undefined
      ? []
      : attention.sensitiveLayers(profile, { by: options.sensitiveBy, count: numberOf("--sensitive", options.sensitive) })),
  ];
  const measured = await lossOf(options, compile);
  try {
    let sources: readonly number[];
    let steps: readonly attention.LossStep[] = [];
    if (search === "greedy") {
      if (!measured) throw new Error("--search greedy: expected --model MODEL and --text-file FILE, whose loss it measures");
      const maxLoss = options.maxLoss === undefined ? undefined : measured.dense + numberOf("--max-loss", options.maxLoss);
      const anchors =
        options.anchors === undefined && maxLoss !== undefined
          ? 1 + own.filter((layer) => layer > 0).length
          : needed("--anchors", options.anchors);
      const { layers } = profile.model;
      ({ sources, steps } = await attention.searchGreedy(measured.loss, { layers, anchors, maxLoss, own }));
    } else sources = searched(profile, similarity, search, own, options);
    if (options.repair !== undefined) {
      if (!measured) throw new Error("--repair: expected --model MODEL and --text-file FILE, whose loss it measures");
      const maxLoss = measured.dense + numberOf("--repair", options.repair);
      const repaired = await attention.repairPlan(sources, measured.loss, { maxLoss, own });
      ({ sources } = repaired);
      steps = [...steps, ...repaired.steps];
    }
    const policy = compile(sources);
    const loss = measured && { dense: measured.dense, policy: await measured.loss(sources), tokens: measured.tokens };
    const kept = attention.keptMass(profile, policy);
    const cost = attention.policyCost(
      policy,
      options.context === undefined ? profile.settings.tokens : numberOf("--context", options.context),
    );
    const how = `${search}${options.repair === undefined ? "" : ", repaired on the loss of a text"}`;
    write(
      out,
      attention.formatPolicy(policy, {
        search: how,
        profile: paths.map((path) => basename(path)).join(", "),
        model: profile.model.name,
        cost: cost.share,
        kept: kept.mean,
        loss,
      }),
    );
    if (html !== undefined)
      write(
        html,
        policyPage(profile, {
          policy,
          how: `${words[search]}${options.repair === undefined ? "" : ", then changed until the loss of a text was low enough"}`,
          loss,
        }),
      );
    const { similarity: sum, worst } = { similarity: sumOf(similarity, sources), worst: worstOf(similarity, sources) };
    const document = {
      out,
      html,
      search,
      sources,
      similarity: sum,
      worst,
      cost,
      kept,
      loss,
      steps,
      line: attention.policyLine(policy),
      policy,
    };
    print(json, document, () =>
      [
        ...describe(policy, cost),
        `${percent(kept.mean)} of the attention mass kept, ${percent(kept.worst)} in the worst layer (as profiled).`,
        ...(loss
          ? [
              `Loss ${loss.policy.toFixed(4)} nats a token, ${loss.dense.toFixed(4)} dense (${signed(loss.policy - loss.dense)}), over ${loss.tokens} tokens.`,
            ]
          : []),
        ...steps.map(({ change, loss: value }) => `  ${value.toFixed(4)}  ${change}`),
        "",
        `Written: ${[out, html].filter((name) => name !== undefined).join(", ")}`,
      ].join("\n"),
    );
  } finally {
    measured?.dispose();
  }
}

const words = {
  hylra: "the fewest lists such that each serves the layers that take it by a threshold (HyLRA's search)",
  ucm: "the best worst case with so many lists (UCM's search)",
  kascade: "exactly so many lists, with the most mass recovered (Kascade's search)",
  pairs: "the most alike pairs of layers, one after the other (HShare's search)",
  greedy: "from lists everywhere, again and again the layer that costs the least loss without one (IndexCache's search)",
} as const;

function searched(
  profile: attention.LayerProfile,
  similarity: attention.Similarity,
  search: keyof typeof words,
  own: readonly number[],
  options: PolicyOptions,
): readonly number[] {
  if (search === "hylra") return attention.searchHylra(similarity, { threshold: numberOf("--threshold", options.threshold), own }).sources;
  if (search === "ucm") return attention.searchUcm(similarity, { resets: needed("--resets", options.resets), own }).sources;
  if (search === "pairs") return attention.searchPairs(similarity, { merges: needed("--merges", options.merges), own }).sources;
  const importance = profile.layers.map((layer) => layer.importance ?? Number.NaN);
  const weights = importance.every(Number.isFinite) ? importance : undefined;
  return attention.searchKascade(similarity, { anchors: needed("--anchors", options.anchors), own, weights }).sources;
}

/** The loss of plans on a text by a model, where one is named. */
async function lossOf(options: PolicyOptions, compile: (sources: readonly number[]) => attention.LayerPolicy) {
  const { model: path, textFile, tokenizer: tokenizerPath, backend } = options;
  if (path === undefined && textFile === undefined) return undefined;
  if (path === undefined || textFile === undefined)
    throw new Error("--model: expected --text-file FILE beside it, and the other way round");
  const hotset = await findHotset();
  try {
    const { loaded, tokenizer } = await findModel(path, tokenizerPath);
    const losses = await PolicyLoss.open(loaded, { hotset, backend, tokenizer });
    const texts = [losses.encode(readText(textFile))];
    const from = options.from === undefined ? Math.floor((texts[0]?.length as number) / 2) : numberOf("--from", options.from);
    const { loss: dense, tokens } = await losses.measure(undefined, { texts, from });
    return {
      dense,
      tokens,
      loss: async (sources: readonly number[]) => (await losses.measure(compile(sources), { texts, from })).loss,
      dispose() {
        losses.dispose();
        hotset.dispose();
      },
    };
  } catch (error) {
    hotset.dispose();
    throw error;
  }
}

function describe(policy: attention.LayerPolicy, cost: attention.PolicyCost): string[] {
  const { full, anchors, reuse } = attention.policyCounts(policy);
  return [
    attention.policyLine(policy),
    `${full} full, ${anchors} with a list, ${reuse} that reuse one. F attends to everything, A makes a list, a makes one and attends to it, a number: whose it takes.`,
    `A generated token reads ${percent(cost.share)} of what dense attention reads, at a context of ${cost.context}.`,
  ];
}

function needed(flag: string, text: string | undefined): number {
  if (text === undefined) throw new Error(`attention policy: expected ${flag} N for this search`);
  return numberOf(flag, text);
}

function listOf(flag: string, text: string | undefined): number[] {
  return text === undefined ? [] : text.split(",").map((part) => numberOf(flag, part));
}

const sumOf = (similarity: attention.Similarity, sources: readonly number[]): number =>
  sources.reduce((sum, source, layer) => sum + similarity.at(source, layer), 0);
const worstOf = (similarity: attention.Similarity, sources: readonly number[]): number =>
  sources.reduce((least, source, layer) => (source === layer ? least : Math.min(least, similarity.at(source, layer))), 1);
const signed = (value: number): string => `${value < 0 ? "" : "+"}${value.toFixed(4)}`;
