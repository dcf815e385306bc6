/** `hotset attention profile`: how much the layers of a model attend to the same tokens. */
import { attention } from "@hotset/core";
import { writeWhole } from "@hotset/core/node";
import { type PageChoice, policyPage } from "./attention-page.js";
import { attentionOf, type SourceOptions, tokenKlOf } from "./attention-source.js";
import type { CommonOptions } from "./index.js";
import { print, progress, table } from "./output.js";

export interface ProfileOptions extends CommonOptions, SourceOptions {
  readonly k: string;
  readonly ratio: string;
  readonly granularity: string;
  readonly sink: string;
  readonly recent: string;
  readonly shared?: boolean;
  readonly queries: string;
  readonly first?: string;
  readonly outputs: boolean;
  readonly texts: "mean" | "worst";
  readonly kl?: boolean;
  readonly klTokens: string;
  readonly out: string;
  readonly dump?: string;
  readonly html?: string;
}

export async function profileCommand(path: string, options: ProfileOptions): Promise<void> {
  const { json, html, dump, out } = options;
  const settings = {
    k: numberOf("-k", options.k),
    ratio: numberOf("--ratio", options.ratio),
    granularity: numberOf("--granularity", options.granularity),
    sink: numberOf("--sink", options.sink),
    recent: numberOf("--recent", options.recent),
    queries: numberOf("--queries", options.queries),
    firstQuery: options.first === undefined ? undefined : numberOf("--first", options.first),
    perHead: options.shared !== true,
    outputs: options.outputs,
  };
  const records = await attentionOf(path, options);
  if (dump !== undefined && records.length > 1) throw new Error("--dump: expected one text: a record is of one");
  if (dump !== undefined) write(dump, await attention.writeRecord(records[0] as attention.AttentionRecord));
  const bar = progress(json);
  const each: attention.LayerProfile[] = [];
  for (const record of records)
    each.push(
      await attention.profileLayers(record, {
        ...settings,
        progress: async (done, total) => {
          bar.step(each.length * total + done, records.length * total, "positions");
          await new Promise((resolve) => setImmediate(resolve));
        },
      }),
    );
  const merged = attention.mergeProfiles(each, options.texts);
  const tokens = numberOf("--kl-tokens", options.klTokens);
  const tokenKl =
    options.kl && (await tokenKlOf(path, merged, tokens, options, (done, total) => bar.step(done, total, "runs of the model")));
  const profile: attention.LayerProfile = tokenKl ? { ...merged, tokenKl } : merged;
  bar.stop();
  write(out, attention.formatProfile(profile));
  if (html !== undefined) write(html, policyPage(profile, defaultChoice(profile)));
  const similarity = attention.profileSimilarity(profile);
  print(json, { source: path, out, html, dump, ...profile }, () => {
    const { tokens, queries, firstQuery, k, granularity, texts = 1, over } = profile.settings;
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const { tokenKl: kl } = profile;
    const head = ["layer", "for 90 %", "own list", "KL", "RNMSE", ...(kl ? ["token KL", "worst"] : []), "best earlier list"];
    const lines = profile.layers.map((layer, i) => {
      const sources = Array.from({ length: i }, (_, source) => source);
      const best = sources.reduce((a, b) => (similarity.at(b, i) >= similarity.at(a, i) ? b : a), 0);
      return [
        String(i),
        percent(mean(layer.spread)),
        percent(mean(layer.kept)),
        layer.kl.toFixed(3),
        layer.rnmse?.toFixed(3) ?? "-",
        ...(kl ? [kl.layers[i]?.mean, kl.layers[i]?.worst].map((value) => (value as number).toExponential(1)) : []),
        i === 0 ? "-" : `${best}: ${percent(similarity.at(best, i))}`,
      ];
    });
    const wrong = profile.layers.findIndex(({ denseError = 0 }) => denseError > 1e-2);
    return [
      `${queries} positions from ${firstQuery} of ${tokens} tokens${texts > 1 ? ` (${over} of ${texts} texts)` : ""}; lists of ${k} tokens by ${granularity}, ${profile.settings.perHead ? "one for each KV head" : "one for all heads"}.`,
      "Share of the context for 90 % of the mass; mass in the layer's own list; of its own in an earlier layer's.",
      ...(kl ? [`Token KL: of the next token with this layer alone over its list, in nats, mean and worst of ${kl.tokens} tokens.`] : []),
      "",
      table(
        [head, ...lines],
        head.slice(0, -1).map((_, column) => column),
      ),
      "",
      ...(wrong >= 0
        ? [
            `Layer ${wrong}: recomputed attention is not the recorded one (by ${percent(profile.layers[wrong]?.denseError as number)}): this is another kind of attention.`,
          ]
        : []),
      `Written: ${[out, html, dump].filter((name) => name !== undefined).join(", ")}`,
    ].join("\n");
  });
}

/** For a page without a search: HyLRA's at a threshold that most layers of a model can meet. */
function defaultChoice(profile: attention.LayerProfile): PageChoice {
  const plan = attention.searchHylra(attention.profileSimilarity(profile), { threshold: 0.9 });
  return {
    policy: attention.compilePolicy(profile, plan.sources),
    how: "the fewest lists such that each layer finds at least 90 % of its own mass in the list it takes (HyLRA's search)",
  };
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export function numberOf(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new Error(`${flag}: expected a number but received ${JSON.stringify(text)}`);
  return value;
}

export function write(path: string, content: string | Uint8Array): void {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  try {
    writeWhole(path, [bytes]);
  } catch (cause) {
    throw new Error(`attention: expected to write ${path} but received ${(cause as Error).message}`, { cause });
  }
}
