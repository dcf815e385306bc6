import type { LayerPolicy } from "../attention/layer-reuse-policy.js";
import type { ReuseCounters } from "../attention/layer-reuse-step.js";
import { defaultHotset } from "../default.js";
import { HotsetError } from "../errors.js";
import type { Hotset } from "../hotset.js";
import { logprob } from "../logits/logprob/spec.js";
import type { Tensor } from "../tensor.js";
import type { LoadedModel } from "./config.js";
import { type AttentionContext, denseAttention, type LayerAttention } from "./layer-attention.js";
import { type Model, type OpenModelSettings, openModel } from "./open.js";
import { type ReuseAttention, reuseAttention } from "./reuse-attention.js";

type Use = (policy: LayerPolicy | undefined) => Promise<ReuseAttention | undefined>;

export interface LossSettings {
  /** Tokens of each text; those of `PolicyLoss.encode`, say. */
  readonly texts: readonly (readonly number[])[];
  /** Tokens of each text that are read as its prompt, densely; the loss is that of the tokens behind. */
  readonly from: number;
}

export interface TextLoss {
  /** Mean negative log-likelihood of a token, in nats. */
  readonly loss: number;
  /** Tokens that it is the mean of. */
  readonly tokens: number;
  /** Of each token, text by text. */
  readonly losses: Float64Array;
  /** What attention by the policy did; undefined where it was dense. */
  readonly counters?: ReuseCounters;
}

export interface TextDivergence {
  /** Over all tokens of all texts: mean and largest, in nats. */
  readonly mean: number;
  readonly worst: number;
  /** Of each token, text by text. */
  readonly values: Float64Array;
}

/**
 * What a policy costs a model, end to end: the loss on texts, whose tokens are given one by one as if they had been generated,
 * so that they go through `LayerReuse` as in decoding. One model, whose policy is changed between measurements.
 *
 *   const losses = await PolicyLoss.open(readModel(bytes), { tokenizer });
 *   const dense = await losses.measure(undefined, { texts, from: 256 });
 *   await attention.searchGreedy(async (sources) => (await losses.measure(compiled(sources), where)).loss, { layers, anchors });
 */
export class PolicyLoss {
  readonly model: Model;
  readonly #hotset: Pick<Hotset, "planSync">;
  readonly #use: Use;

  private constructor(model: Model, hotset: Pick<Hotset, "planSync">, use: Use) {
    this.model = model;
    this.#hotset = hotset;
    this.#use = use;
  }

  /** Throws what `openModel` throws. */
  static async open(
    source: Uint8Array | LoadedModel,
    settings: Omit<OpenModelSettings, "attention" | "eviction"> = {},
  ): Promise<PolicyLoss> {
    let use: Use | undefined;
    const hotset = settings.hotset ?? (await defaultHotset());
    const model = await openModel(source, {
      ...settings,
      hotset,
      attention: async (context) => {
        const switched = await switchedAttention(context);
        use = switched.use;
        return switched.attention;
      },
    });
    return new PolicyLoss(model, hotset, use as Use);
  }

  /** The tokens of a text, no more than the context. */
  encode(text: string): number[] {
    return this.model.tokenizer.encode(text).slice(0, this.model.context);
  }

  /** The loss under a policy; undefined: dense attention. Throws HotsetError where a text has no tokens behind `from`. */
  async measure(policy: LayerPolicy | undefined, { texts, from }: LossSettings): Promise<TextLoss> {
    this.#check("measure", { texts, from });
    const reuse = await this.#use(policy);
    const losses = new Float64Array(texts.reduce((sum, text) => sum + text.length - from, 0));
    let at = 0;
    for (const text of texts)
      await this.#decode(text, from, (logits, next) => {
        losses[at++] = surprise(logits.data, next);
      });
    const loss = losses.reduce((sum, value) => sum + value, 0) / losses.length;
    return { loss, tokens: losses.length, losses, ...(reuse ? { counters: reuse.counters } : {}) };
  }

  /**
   * How far policies change what the model says: KL(dense || policy) of the next token's distribution, in nats, at each token
   * behind `from`, policy by policy. Dense logits of one text at a time are kept: 4 * vocab bytes a token. `progress` is called
   * after each text of a policy. Throws HotsetError like `measure`.
   */
  async divergences(
    policies: readonly LayerPolicy[],
    { texts, from }: LossSettings,
    progress?: (done: number, total: number) => void,
  ): Promise<readonly TextDivergence[]> {
    this.#check("divergences", { texts, from });
    const { vocab } = this.model.config;
    const counts = texts.map((text) => text.length - from);
    const [dense, other] = [new Float32Array(Math.max(...counts) * vocab), new Float32Array(vocab)];
    const values = policies.map(() => new Float64Array(counts.reduce((sum, count) => sum + count, 0)));
    const plan = this.#hotset.planSync(logprob, { tokens: 1, vocab, k: 0 }, { against: true });
    const logits = new Float32Array(vocab);
    const step = plan.bind({ logits, against: other, targets: Int32Array.of(-1) });
    let before = 0;
    let done = 0;
    try {
      for (const [i, text] of texts.entries()) {
        await this.#use(undefined);
        let at = 0;
        await this.#decode(text, from, ({ data }) => dense.set(data, vocab * at++));
        for (const [p, policy] of policies.entries()) {
          await this.#use(policy);
          at = 0;
          await this.#decode(text, from, ({ data }) => {
            logits.set(dense.subarray(vocab * at, vocab * (at + 1)));
            other.set(data);
            // Equal distributions are 0, give or take a rounding.
            (values[p] as Float64Array)[before + at++] = Math.max(0, step.run().kl[0] as number);
          });
          progress?.(++done, texts.length * policies.length);
        }
        before += counts[i] as number;
      }
    } finally {
      step.dispose();
    }
    return values.map((own) => ({
      mean: own.reduce((sum, value) => sum + value, 0) / own.length,
      worst: own.reduce((most, value) => Math.max(most, value), 0),
      values: own,
    }));
  }

  dispose(): void {
    this.model.dispose();
  }

  #check(method: string, { texts, from }: LossSettings): void {
    const { context } = this.model;
    for (const [i, text] of texts.entries())
      if (!Number.isInteger(from) || from < 1 || text.length <= from || text.length > context)
        throw new HotsetError("argument", {
          where: `PolicyLoss.${method}: texts[${i}]`,
          expected: `${from + 1} to ${context} tokens, of which the first ${from} are the prompt (at least 1)`,
          received: `${text.length}`,
        });
    if (texts.length === 0)
      throw new HotsetError("argument", { where: `PolicyLoss.${method}`, expected: "a text at least", received: "none" });
  }

  /** Reads a text, token by token behind `from`; `each` has the logits before each of these, and the token. */
  async #decode(text: readonly number[], from: number, each: (logits: Tensor<"f32">, next: number) => void): Promise<void> {
    const { forward } = this.model;
    forward.begin(from);
    for (let t = 0; t < from; t += forward.chunk) {
      const end = Math.min(from, t + forward.chunk);
      await forward.run(text.slice(t, end), end === from);
    }
    for (let t = from; t < text.length; t++) {
      each(forward.logits, text[t] as number);
      if (t + 1 < text.length) await forward.run([text[t] as number]);
      if (t % 16 === 0) await new Promise<void>((resolve) => setTimeout(resolve, 0));
    }
  }
}

/** -ln of the probability of a token. */
function surprise(logits: Float32Array, token: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) largest = Math.max(largest, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return Math.log(sum) + largest - (logits[token] as number);
}

/** Attention whose policy may be changed between texts. */
async function switchedAttention(context: AttentionContext) {
  const dense = await denseAttention(context);
  let now: LayerAttention = dense;
  let last: ReuseAttention | undefined;
  const attention: LayerAttention = {
    begin: () => now.begin?.(),
    attend: (layer, tokens, ofPrompt) => now.attend(layer, tokens, ofPrompt),
    dispose() {
      last?.dispose();
      dense.dispose();
    },
  };
  const use = async (policy: LayerPolicy | undefined): Promise<ReuseAttention | undefined> => {
    const next = policy && (await reuseAttention(context, policy));
    last?.dispose();
    last = next;
    now = next ?? dense;
    return next;
  };
  return { attention, use };
}
