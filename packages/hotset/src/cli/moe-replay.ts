/** `hotset moe replay`: a routing trace against expert caches: hits, bytes, and the time that tokens wait at a bandwidth. */
import { readFileSync } from "node:fs";
import { defaultHotset, moe, setDefaultHotset } from "@hotset/core";
import { findHotset } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { type Progress, print, progress, table } from "./output.js";

export interface ReplayOptions extends CommonOptions {
  readonly format?: string;
  readonly cache: string;
  readonly predictor?: string;
  readonly capacity?: string;
  readonly bandwidth: string;
  readonly layerTime: string;
  readonly expertBytes: string;
  readonly decay: string;
}

interface Row extends moe.ReplayResult {
  /** Misses over those of the best that any cache could do: Belady with bypass. */
  readonly missesOverBelady: number;
  readonly msPerToken: number;
  readonly linkUtilisation: number;
}

export async function moeReplay(path: string, options: ReplayOptions): Promise<void> {
  const policies = listOf("--cache", options.cache, moe.retentionPolicies);
  const [bandwidth, layerTime, expertBytes, decay] = (["bandwidth", "layerTime", "expertBytes", "decay"] as const).map((name) =>
    positive(`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, options[name]),
  ) as [number, number, number, number];
  const names = options.predictor ? listOf("--predictor", options.predictor, moe.predictors) : [];
  const trace = await readTrace(path, options.format);
  const capacities = capacitiesOf(options.capacity, trace);
  const bar = progress(options.json);
  const nextUses = moe.nextUses(trace);
  const rows: Row[] = [];
  let done = 0;
  for (const capacity of capacities) {
    const settings = { capacity, decay, expertBytes, bandwidth, nextUses };
    const best = moe.replayMoeTrace(trace, { ...settings, policy: "belady-bypass" });
    for (const policy of policies) {
      bar.step(done++, policies.length * capacities.length, `${policy}, ${capacity} slots`);
      await new Promise((resolve) => setImmediate(resolve));
      rows.push(
        withTimes(
          policy === "belady-bypass" ? best : moe.replayMoeTrace(trace, { ...settings, policy }),
          best,
          (trace.layers * layerTime) / 1e3,
        ),
      );
    }
  }
  const quality = names.length ? await judged(trace, names, bar) : [];
  bar.stop();
  const { model, layers, experts, topK, tokens, sequences } = trace;
  const document = {
    trace: { path, model, layers, experts, topK, tokens, sequences: sequences.length },
    bandwidth,
    layerTimeUs: layerTime,
    expertBytes,
    decay,
    rows,
    ...(quality.length ? { predictors: quality } : {}),
  };
  print(options.json, document, () =>
    [
      `${model}: ${tokens} tokens in ${sequences.length} sequences, ${layers} layers of ${experts} experts, ${topK} of them used.`,
      `Experts of ${(expertBytes / 1e6).toFixed(1)} MB over ${bandwidth} GB/s, ${layerTime} us of compute a layer; slots are per layer; the cache stays warm.`,
      "",
      describeRows(rows),
      ...(quality.length ? ["", describeQuality(quality, topK)] : []),
    ].join("\n"),
  );
}

function withTimes(result: moe.ReplayResult, best: moe.ReplayResult, computeMs: number): Row {
  const misses = result.references - result.hits;
  const least = best.references - best.hits;
  const msPerToken = computeMs + result.stallMsPerToken;
  return {
    ...result,
    missesOverBelady: misses === least ? 1 : misses / least,
    msPerToken,
    linkUtilisation: result.stallMsPerToken / msPerToken,
  };
}

function describeRows(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    row.policy,
    String(row.capacity),
    row.hitRatio.toFixed(3),
    row.missesOverBelady.toFixed(2),
    (row.bytesPerToken / 1e6).toFixed(1),
    row.stallMsPerToken.toFixed(2),
    row.msPerToken.toFixed(2),
  ]);
  const head = ["cache", "slots", "hit ratio", "misses to Belady's", "MB/token", "stall ms/token", "ms/token"];
  return table([head, ...lines], [1, 2, 3, 4, 5, 6]);
}

function describeQuality(quality: readonly moe.PredictionQuality[], topK: number): string {
  const lines = quality.map(({ predictor, recallAtK, recallAt2K, splits }) => [
    predictor,
    recallAtK.toFixed(3),
    recallAt2K.toFixed(3),
    splits.map((split) => `${split.recallAtK.toFixed(3)}/${split.recallAt2K.toFixed(3)}`).join("  "),
  ]);
  return [
    "Predicted before the first layer, on sequences that were not fitted on (three tenths, three splits):",
    table([["predictor", `recall at ${topK}`, `recall at ${2 * topK}`, "each split"], ...lines], [1, 2]),
  ].join("\n");
}

/** Fits with the fastest of the installed backends. */
async function judged(trace: moe.MoeTrace, names: readonly moe.PredictorName[], bar: Progress): Promise<moe.PredictionQuality[]> {
  setDefaultHotset(findHotset);
  const quality = await moe.evaluatePredictors(trace, names, { progress: waiting(bar) });
  (await defaultHotset()).dispose();
  return quality;
}

/** Lets the bar be drawn between the layers of a fit. */
const waiting = (bar: Progress) => async (done: number, total: number) => {
  bar.step(done, total, "fitting predictors");
  await new Promise((resolve) => setImmediate(resolve));
};

const formats = ["moetrc", "csv", "json"] as const;

/** The trace in a file; its format by its name where none is said. Files may be gzipped. */
async function readTrace(path: string, wanted: string | undefined): Promise<moe.MoeTrace> {
  const format = wanted ?? formats.find((name) => path.replace(/\.gz$/, "").endsWith(`.${name}`));
  if (!format || !(formats as readonly string[]).includes(format))
    throw new Error(`moe replay: expected --format of ${formats.join(", ")} but received ${format ? JSON.stringify(format) : "none"}`);
  const bytes = await moe.unzipped(readFileSync(path), path);
  if (format === "moetrc") return moe.parseMoeTrace(bytes, path);
  const text = new TextDecoder().decode(bytes);
  return format === "csv" ? moe.moeTraceFromCsv(text, { where: path }) : moe.moeTraceFromJson(text, { where: path });
}

function capacitiesOf(list: string | undefined, { experts, topK }: moe.MoeTrace): number[] {
  if (list === undefined) return [Math.max(topK, Math.ceil(experts / 4))];
  return list.split(",").map((text) => {
    const capacity = Number(text);
    if (!/^\s*\d+\s*$/.test(text) || capacity < topK || capacity > experts)
      throw new Error(
        `moe replay: expected --capacity from ${topK}, what a token needs in a layer, to ${experts} but received ${JSON.stringify(text)}`,
      );
    return capacity;
  });
}

/** A comma-separated list of known names, or `all`. */
export function listOf<T extends string>(flag: string, list: string, known: readonly T[]): readonly T[] {
  if (list === "all") return known;
  return list.split(",").map((text) => {
    const name = known.find((candidate) => candidate === text.trim());
    if (!name) throw new Error(`moe replay: expected ${flag} of ${known.join(", ")} or all but received ${JSON.stringify(text)}`);
    return name;
  });
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value <= 0)
    throw new Error(`moe replay: expected ${flag} above 0 but received ${JSON.stringify(text)}`);
  return value;
}
