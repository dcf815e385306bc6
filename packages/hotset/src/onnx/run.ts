/** Runs one case on one backend: the operators that Hotset's ops can express, and by name those that they cannot. */
import { type Hotset, HotsetError } from "@hotset/core";
import { attention, attentionAttributes } from "./attention.js";
import type { FoundCase, OnnxCase } from "./cases.js";
import { contribAttributes, groupQueryAttention, multiHeadAttention, projectedAttention } from "./contrib.js";
import { rotary, rotaryAttributes } from "./rotary.js";
import { softmax, topK } from "./rows.js";
import { type Produced, Runner, wrongWith } from "./runner.js";
import { notRun } from "./tensor.js";

export type Status = "passed" | "failed" | "unsupported";

export interface CaseResult {
  readonly name: string;
  /** Null where the model could not be read. */
  readonly operator: string | null;
  readonly status: Status;
  /** What is wrong, or why it does not run. */
  readonly reason: string | null;
  /** Of a case that does not run: its kind, in a few words. */
  readonly kind: string | null;
  /** The ops that gave each output that was compared; several ways to one output were all compared. */
  readonly via: readonly string[];
}

type Operator = { readonly attributes: readonly string[]; run(run: Runner, test: OnnxCase): Promise<Produced[]> };

/** By domain, a colon, and name. */
const operators: Readonly<Record<string, Operator>> = {
  ":Attention": { attributes: attentionAttributes, run: attention },
  ":RotaryEmbedding": { attributes: rotaryAttributes, run: rotary },
  ":Softmax": { attributes: ["axis"], run: softmax },
  ":TopK": { attributes: ["axis", "largest", "sorted", "k"], run: topK },
  "com.microsoft:Attention": { attributes: contribAttributes.Attention, run: projectedAttention },
  "com.microsoft:MultiHeadAttention": { attributes: contribAttributes.MultiHeadAttention, run: multiHeadAttention },
  "com.microsoft:GroupQueryAttention": { attributes: contribAttributes.GroupQueryAttention, run: groupQueryAttention },
  "com.microsoft:RotaryEmbedding": { attributes: rotaryAttributes, run: rotary },
};

/** Never throws: what goes wrong is the case's result. */
export async function runCase(found: FoundCase, hotset: Hotset, backend: string): Promise<CaseResult> {
  let test: OnnxCase | undefined;
  const result = (status: Status, rest: Partial<CaseResult> = {}): CaseResult => ({
    name: found.name,
    operator: test ? `${test.domain === "" ? "" : `${test.domain}.`}${test.operator}` : null,
    status,
    reason: null,
    kind: null,
    via: [],
    ...rest,
  });
  try {
    test = found.load();
    const produced = await runOperator(test, new Runner(hotset, backend));
    const problems = compared(test, produced);
    const via = [...new Set(produced.map((one) => one.via))];
    return problems.length ? result("failed", { reason: problems.join("; "), via }) : result("passed", { via });
  } catch (error) {
    if (error instanceof HotsetError && error.code === "unsupported")
      return result("unsupported", { reason: error.message, kind: error.received });
    return result("failed", { reason: error instanceof Error ? error.message : String(error) });
  }
}

async function runOperator(test: OnnxCase, run: Runner): Promise<Produced[]> {
  const operator = operators[`${test.domain}:${test.operator}`];
  if (!operator)
    throw notRun(
      `one of ${Object.keys(operators)
        .map((name) => name.replace(/^:/, "").replace(":", "."))
        .join(", ")}`,
      test.operator,
    );
  const unknown = Object.keys(test.attributes).find((name) => !operator.attributes.includes(name));
  if (unknown !== undefined) throw notRun(`attributes of ${operator.attributes.join(", ")}`, `${test.operator} with ${unknown}`);
  return operator.run(run, test);
}

/** Every output that is expected was given, by every way, as it should be. */
function compared({ expected }: OnnxCase, produced: readonly Produced[]): string[] {
  const problems: string[] = [];
  for (const [output, wanted] of expected.entries()) {
    if (!wanted) continue;
    const given = produced.filter((one) => one.output === output);
    if (given.length === 0) problems.push(`output ${output} (${wanted.name}) was not computed`);
    for (const one of given) {
      const wrong = wrongWith(one, wanted);
      if (wrong) problems.push(`${wrong}, by ${one.via}`);
    }
  }
  if (!expected.some((one) => one)) problems.push("the case expects nothing");
  return problems;
}
