/** The page of a profile and a policy: one file without scripts or network, light and dark. */
import { attention } from "@hotset/core";
import { bars, escaped, frontier, heatMap, strip } from "./attention-figures.js";

export interface PageChoice {
  readonly policy: attention.LayerPolicy;
  /** How it was found, as the end of a sentence. */
  readonly how: string;
  readonly loss?: { readonly dense: number; readonly policy: number; readonly tokens: number } | undefined;
}

export function policyPage(profile: attention.LayerProfile, { policy, how, loss }: PageChoice): string {
  const { model, settings } = profile;
  const cost = attention.policyCost(policy, settings.tokens);
  const kept = attention.keptMass(profile, policy);
  const counts = attention.policyCounts(policy);
  const matrix = (measure: attention.Measure, headMaps: boolean): attention.Similarity =>
    attention.profileSimilarity(profile, { measure, headMaps });
  const sources = attention.sourcesOf(policy);
  const name = model.name ?? "a model";
  const figures = [
    [percent(cost.share), `of the context's keys and values read by a generated token, at ${settings.tokens} tokens`],
    [percent(kept.mean), `of the attention mass kept on average, ${percent(kept.worst)} in the worst layer`],
    [`${counts.full + counts.anchors} of ${model.layers}`, "layers go through everything; the others read a list only"],
    ...(loss
      ? [
          [
            `${signed(loss.policy - loss.dense)}`,
            `nats of loss a token against dense attention (${loss.dense.toFixed(3)}), over ${loss.tokens} tokens`,
          ],
        ]
      : []),
  ];
  const best = bestSource(profile);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention of ${escaped(name)}, layer by layer</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>Attention of ${escaped(name)}, layer by layer</h1>
<p class="lead">Each layer of a language model looks back over the whole text, but puts most of its weight on a few tokens, and
neighbouring layers often on the same ones. So one layer can list the tokens that mattered to it, and the layers after it read
only those. This page shows where that works in this model, and a policy that says which layer does what.</p>
<div class="figures">${figures.map(([value, label]) => `<div><b>${value}</b><span>${label}</span></div>`).join("")}</div>

<h2>The policy</h2>
<p>Found as ${escaped(how)}. Coloured layers look at everything${policy.layers.some((rule) => rule.kind === "anchor" && rule.attends) ? ", or read the list that they make" : ""}; a pale one reads
only the list of the layer that its arc comes from.</p>
<figure>${strip(policy, kept.layers)}</figure>

<h2>Whose list serves whom</h2>
<p>A row is the layer that made the list, a column the layer that takes it. <b>Recovered mass</b>: of the weight that a layer's own
list would catch, how much the other's list catches; 100 means that nothing is lost. <b>Overlap</b>: how many tokens of the two lists
are the same. Overlap is the stricter number and the worse guide: what differs is often tokens that hardly weigh. Framed cells are
those that the policy uses.</p>
<div class="maps">
<figure><figcaption>Recovered mass, %</figcaption>${heatMap(matrix("mass", true), sources, "Recovered mass")}</figure>
<figure><figcaption>Overlap, %</figcaption>${heatMap(matrix("overlap", false), sources, "Overlap")}</figure>
</div>
<p>${best}</p>

<h2>How wide each layer looks</h2>
<p>The least share of the context that holds 90&#8239;% of a layer's weight, mean over its heads. A layer that looks everywhere loses most
with any list, and is best left alone.</p>
<figure>${bars(
    profile.layers.map(({ spread }) => spread.reduce((sum, value) => sum + value, 0) / spread.length),
    "How wide each layer looks",
    (value) => `${(100 * value).toFixed(1)} %`,
  )}</figure>
${sensitivity(profile)}

<h2>Fewer lists, less read, less kept</h2>
<p>The best policy with each number of lists (Kascade's search): what it reads and what it keeps. The ring is the policy above.</p>
<figure>${frontier(points(profile), { cost: cost.share, kept: kept.mean })}</figure>

<h2>How it was measured</h2>
<p>${settings.queries} positions of ${settings.texts ? `${settings.texts} texts of at most ${settings.tokens} tokens (numbers are ${settings.over === "worst" ? "those of the worst text" : "means"})` : `a text of ${settings.tokens} tokens`}, from token ${settings.firstQuery} on; ${model.layers} layers, ${model.queryHeads} query and
${model.kvHeads} KV heads of ${model.headDim}. A list holds ${settings.k} tokens${settings.ratio > 0 ? `, or ${percent(settings.ratio)} of the context where that is more` : ""}, ${settings.granularity === 1 ? "each by itself" : `${settings.granularity} at a time`},
${settings.perHead ? "one list for each KV head" : "one list for all heads"}, with the first ${settings.sink} and the last ${settings.recent} always among them. Every layer was given what it
gets in dense attention, so errors that add up from layer to layer are not in these numbers${loss ? "; they are in the loss" : ""}.</p>
${table(profile, policy, kept, cost)}
</main>
</body>
</html>
`;
}

/** What each layer does to the next token by itself, where that was measured. */
function sensitivity({ tokenKl }: attention.LayerProfile): string {
  if (!tokenKl) return "";
  const means = tokenKl.layers.map(({ mean }) => mean);
  const most = means.indexOf(Math.max(...means));
  return `
<h2>What each layer does to the next token</h2>
<p>With one layer over its own lists and all others dense: how far the distribution of the next token moves, as KL divergence in
nats, mean over ${tokenKl.tokens} tokens. The worst of them moved by ${number(Math.max(...tokenKl.layers.map(({ worst }) => worst)))}. The most sensitive
layer is ${most}; what costs much here is better left dense.</p>
<figure>${bars(means, "What each layer does to the next token", number)}</figure>`;
}

/** Small numbers, of any size. */
const number = (value: number): string => (value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : value.toPrecision(2));

const percent = (share: number): string => `${(100 * share).toFixed(1)}&#8239;%`;
const signed = (value: number): string => `${value < 0 ? "&minus;" : "+"}${Math.abs(value).toFixed(4)}`;

/** The best policies with 1, 2, ... lists. */
function points(profile: attention.LayerProfile): { lists: number; cost: number; kept: number }[] {
  const similarity = attention.profileSimilarity(profile);
  const { tokens } = profile.settings;
  return Array.from({ length: profile.model.layers }, (_, i) => {
    const policy = attention.compilePolicy(profile, attention.searchKascade(similarity, { anchors: i + 1 }).sources);
    return { lists: i + 1, cost: attention.policyCost(policy, tokens).share, kept: attention.keptMass(profile, policy).mean };
  });
}

/** A sentence on the pair of layers that are most alike, and on the one that none serves. */
function bestSource(profile: attention.LayerProfile): string {
  const { layers } = profile.model;
  if (layers < 2) return "";
  const similarity = attention.profileSimilarity(profile);
  const served = Array.from({ length: layers - 1 }, (_, i) => {
    const sources = Array.from({ length: i + 1 }, (__, source) => source);
    const source = sources.reduce((a, b) => (similarity.at(b, i + 1) > similarity.at(a, i + 1) ? b : a));
    return { layer: i + 1, source, value: similarity.at(source, i + 1) };
  });
  const most = served.reduce((a, b) => (b.value > a.value ? b : a));
  const least = served.reduce((a, b) => (b.value < a.value ? b : a));
  return `Best served is layer ${most.layer}, by the list of layer ${most.source} (${percent(most.value)}); worst layer ${least.layer}, for which the best list, that of layer ${least.source}, catches ${percent(least.value)}.`;
}

function table(
  profile: attention.LayerProfile,
  policy: attention.LayerPolicy,
  kept: attention.KeptMass,
  cost: attention.PolicyCost,
): string {
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const does = (rule: attention.LayerRule): string =>
    rule.kind === "full"
      ? "everything"
      : rule.kind === "reuse"
        ? `list of ${rule.source}`
        : rule.attends
          ? "own list"
          : "everything, lists";
  const rows = policy.layers.map((rule, layer) => {
    const own = profile.layers[layer] as attention.LayerStatistics;
    const cells = [
      layer,
      does(rule),
      percent(cost.layers[layer] as number),
      percent(kept.layers[layer] as number),
      percent(mean(own.kept)),
      percent(mean(own.spread)),
      own.kl.toFixed(3),
      own.rnmse?.toFixed(3) ?? "&ndash;",
      ...(profile.tokenKl ? [number(profile.tokenKl.layers[layer]?.mean as number)] : []),
    ];
    return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  });
  return `<div class="wide"><table>
<thead><tr><th>Layer</th><th>Attends to</th><th>Reads</th><th>Keeps</th><th>Own list would keep</th><th>90&#8239;% lies in</th><th>KL, own list</th><th>Output error, own list</th>${profile.tokenKl ? "<th>KL of the next token, alone</th>" : ""}</tr></thead>
<tbody>${rows.join("\n")}</tbody>
</table></div>`;
}

const style = `
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #1d2329; --soft: #5d6771; --line: #d9d6d0; --card: #ffffff; --accent: #0b5d8a; --on-accent: #ffffff; --second: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e6e8ea; --soft: #9aa4ad; --line: #333b43; --card: #1c2228; --accent: #6cb8e6; --on-accent: #0b1419; --second: #f0a06a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 44rem; margin: .5rem 0; }
.lead { font-size: 1.05rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }
.figures b { display: block; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; line-height: 1.35; display: block; }
figure { margin: 1rem 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; overflow-x: auto; }
figcaption { font-weight: 600; margin-bottom: .5rem; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
.maps figure { margin: 0; }
svg { display: block; max-width: 100%; height: auto; margin: 0 auto; font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); }
svg .on { fill: var(--on-accent); }
svg .cell { fill: var(--accent); }
svg .second { fill: var(--second); }
svg .rule { stroke: var(--line); fill: none; }
svg .arc { stroke: var(--second); fill: none; stroke-width: 1.5; }
svg .frame { stroke: var(--second); fill: none; stroke-width: 2; }
svg .path { stroke: var(--accent); fill: none; stroke-width: 1.5; }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; white-space: normal; vertical-align: bottom; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
`;
