/** `hotset run`: continues a text with a model, token by token. */
import { basename } from "node:path";
import {
  attention,
  type EvictionCounters,
  type EvictionSettings,
  HotsetError,
  type Model,
  openModel,
  type ReuseAttention,
  reuseAttention,
} from "@hotset/core";
import { findHotset } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { findModel, text as readText } from "./model-files.js";

export interface RunOptions extends CommonOptions {
  readonly prompt: string;
  readonly tokenizer?: string;
  readonly maxTokens: string;
  readonly temperature: string;
  readonly topK: string;
  readonly topP: string;
  readonly minP: string;
  readonly seed: string;
  readonly context?: string;
  readonly policy?: string;
  readonly evict?: EvictionSettings["method"];
  readonly budget?: string;
  readonly backend?: string;
}

/** Why generation ended. */
type Stop = "end" | "maxTokens" | "context" | "interrupted";

export async function runModel(path: string, options: RunOptions): Promise<void> {
  const { prompt, json } = options;
  const settings = {
    maxTokens: number(options.maxTokens, "--max-tokens"),
    temperature: number(options.temperature, "--temperature"),
    topK: number(options.topK, "--top-k"),
    topP: number(options.topP, "--top-p"),
    minP: number(options.minP, "--min-p"),
    seed: number(options.seed, "--seed"),
  };
  const eviction = evictionOf(options);
  const hotset = await findHotset();
  const interrupt = new AbortController();
  const stop = (): void => interrupt.abort();
  process.once("SIGINT", stop);
  let model: Model | undefined;
  try {
    const { loaded, tokenizer } = await findModel(path, options.tokenizer);
    const context = options.context === undefined ? undefined : number(options.context, "--context");
    const { policy: where } = options;
    const policy = where === undefined ? undefined : attention.parsePolicy(readText(where), { where, ...loaded.config });
    let reuse: ReuseAttention | undefined;
    model = await openModel(loaded, {
      hotset,
      backend: options.backend,
      tokenizer,
      context,
      attention: policy && (async (layers) => (reuse = await reuseAttention(layers, policy))),
      eviction,
    });
    const promptTokens = model.tokenizer.encode(prompt).length;
    const start = performance.now();
    let firstAt = start;
    let text = "";
    let tokens = 0;
    let stopped: Stop = "end";
    const show = (piece: string): void => {
      if (!json) process.stdout.write(piece);
    };
    try {
      for await (const piece of model.tokens(prompt, { ...settings, signal: interrupt.signal })) {
        if (tokens === 0) firstAt = performance.now();
        // Not before there is something to print: bad input is one line of its own.
        show(tokens === 0 ? prompt + piece.text : piece.text);
        if (piece.id >= 0) tokens++;
        text += piece.text;
      }
      if (tokens >= settings.maxTokens) stopped = "maxTokens";
      else if (promptTokens + tokens > model.context) stopped = "context";
    } catch (error) {
      if (!interrupt.signal.aborted || error instanceof HotsetError) throw error;
      stopped = "interrupted";
      process.exitCode = 130;
    }
    const seconds = (performance.now() - start) / 1e3;
    const rate = tokens > 1 ? (tokens - 1) / (seconds - (firstAt - start) / 1e3) : 0;
    const speed = { firstTokenMs: firstAt - start, tokensPerSecond: rate, seconds };
    const { backend, config } = model;
    const counters = reuse && policyCounters(reuse);
    const evicted = model.forward.evicted && evictionCounters(model.forward.evicted);
    if (json)
      console.log(
        JSON.stringify(
          {
            model: basename(path),
            format: config.format,
            backend,
            why: model.why,
            prompt,
            text,
            promptTokens,
            tokens,
            stopped,
            ...speed,
            policy: counters,
            eviction: evicted,
          },
          null,
          2,
        ),
      );
    else {
      console.log(
        `\n\n${tokens} tokens on ${backend}, ${rate.toFixed(0)} a second, the first after ${speed.firstTokenMs.toFixed(1)} ms (${reasons[stopped]})`,
      );
      if (counters) console.error(policyLine(counters));
      if (evicted) console.error(evictionLine(evicted));
    }
  } finally {
    process.off("SIGINT", stop);
    model?.dispose();
    hotset.dispose();
  }
}

const reasons: Readonly<Record<Stop, string>> = {
  end: "the model ended the text",
  maxTokens: "--max-tokens",
  context: "the context is full",
  interrupted: "interrupted",
};

function evictionOf({ evict: method, budget, policy }: RunOptions): EvictionSettings | undefined {
  if (method === undefined) {
    if (budget !== undefined) throw new Error("--budget: expected --evict snapkv or --evict streaming-llm beside it");
    return undefined;
  }
  if (policy !== undefined) throw new Error("--evict: expected no --policy beside it: its lists would name tokens that have left");
  if (budget === undefined) throw new Error("--evict: expected --budget, the tokens that stay");
  return { method, budget: number(budget, "--budget") };
}

/** What eviction did, with the bytes of keys and values: of the cache, of what was used of it, and of one for the whole context. */
function evictionCounters(counters: EvictionCounters) {
  const { pageBytes, pages, peakPages, cachePages, contextPages } = counters;
  return {
    ...counters,
    bytes: pages * pageBytes,
    peakBytes: peakPages * pageBytes,
    cacheBytes: cachePages * pageBytes,
    contextBytes: contextPages * pageBytes,
  };
}

function evictionLine(counters: ReturnType<typeof evictionCounters>): string {
  const { method, tokensEvicted, evictions, pagesFreed, pages, peakPages, cacheBytes, contextBytes } = counters;
  const freed = `${tokensEvicted} tokens evicted in ${evictions} ${evictions === 1 ? "eviction" : "evictions"}, ${pagesFreed} pages freed`;
  return `${method}: ${freed}, ${pages} in use and ${peakPages} at most; the cache is ${kib(cacheBytes)}, one for the whole context ${kib(contextBytes)}`;
}

const kib = (bytes: number): string => `${(bytes / 1024).toFixed(1)} KiB`;

/** What attention by the policy did in the generated tokens. */
function policyCounters({ counters }: ReuseAttention) {
  const { massKept, sparseRuns, ...others } = counters;
  return { ...others, sparseActive: sparseRuns > 0, sparseRuns, massKept: Number.isNaN(massKept) ? null : massKept };
}

function policyLine({ sparseActive, tokensAttended, tokensVisible, massKept, anchorRuns }: ReturnType<typeof policyCounters>): string {
  const attended = `${tokensAttended} of ${tokensVisible} visible tokens attended${tokensVisible ? ` (${percent(tokensAttended / tokensVisible)})` : ""}`;
  const kept = massKept === null ? "" : `, ${percent(massKept)} of the attention mass kept`;
  return `policy: sparse attention ${sparseActive ? "active" : "not active"}, ${attended}${kept}, ${anchorRuns} anchor runs`;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

function number(text: string, flag: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new Error(`${flag}: expected a number but received ${JSON.stringify(text)}`);
  return value;
}
