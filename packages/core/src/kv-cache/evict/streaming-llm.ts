import { type KeptTokens, mustBeWhole, sameForAll } from "./kept.js";

export interface StreamingLlmSettings {
  /** Tokens of the sequence. */
  readonly length: number;
  readonly kvHeads: number;
  /** Tokens that stay, sinks included. */
  readonly budget: number;
  /** First tokens that always stay; default 4. */
  readonly sinks?: number;
}

/**
 * StreamingLLM (Xiao et al., arXiv 2309.17453): the first `sinks` tokens and the last `budget - sinks`. Keys stay as
 * they were rotated. Where the budget is the length or more, all tokens are kept.
 * Throws HotsetError where the budget has no room for a token beside the sinks.
 */
export function streamingLlm({ length, kvHeads, budget, sinks = 4 }: StreamingLlmSettings): KeptTokens {
  mustBeWhole("streamingLlm", "a length", length, 0);
  mustBeWhole("streamingLlm", "kvHeads", kvHeads, 1);
  mustBeWhole("streamingLlm", "sinks", sinks, 0);
  mustBeWhole("streamingLlm", "a budget", budget, sinks + 1, `, one more than the ${sinks} sinks,`);
  const all = Array.from({ length }, (_, token) => token);
  return sameForAll(budget >= length ? all : [...all.slice(0, sinks), ...all.slice(length - (budget - sinks))], kvHeads);
}
