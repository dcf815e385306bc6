/** `support.json`: what each backend claims to run, and what the suite saw it run. */
import { type Backend, isDevice } from "../backend.js";
import type { Op } from "../op/define.js";
import { variantKey, variants } from "../op/variant.js";
import { ops } from "../ops.js";
import type { Coverage } from "./suite.js";

/** One claim. Exactly one of kernels and reason is there. */
export interface SupportRow {
  readonly op: string;
  readonly variant: string;
  /** Backend and instruction set, build or device: `native-avx2`. */
  readonly target: string;
  /** The kernels that the cases of this variant get. */
  readonly kernels?: readonly string[];
  /** Why there is none. */
  readonly reason?: string;
  /** When and where it was last seen to pass on such a machine. */
  readonly verified: { readonly date: string; readonly device: string } | null;
}

/** Real devices of one kind share a column: what they run does not depend on the model. */
export const targetOf = (backend: Backend): string =>
  isDevice(backend) && !backend.device.software ? backend.id : `${backend.id}-${backend.target}`;

/** What a run of the suite showed, without the dates. */
export function observedRows(backend: Backend, coverage: Coverage): Omit<SupportRow, "verified">[] {
  return everyVariant().map(({ op, variant }) => {
    const key = `${op.id} | ${variant}`;
    const kernels = coverage.kernels.get(key);
    const base = { op: op.id, variant, target: targetOf(backend) };
    return kernels ? { ...base, kernels: [...kernels].sort() } : { ...base, reason: coverage.reasons.get(key) ?? "no case ran" };
  });
}

/** Differences between the claims for this backend's target and what ran, as sentences. */
export function supportProblems(claims: readonly SupportRow[], observed: readonly Omit<SupportRow, "verified">[]): string[] {
  const problems: string[] = [];
  for (const row of observed) {
    const claim = claims.find(({ op, variant, target }) => op === row.op && variant === row.variant && target === row.target);
    const name = `${row.op} | ${row.variant} on ${row.target}`;
    const saw = row.kernels ? `kernels ${row.kernels.join(", ")}` : `none: ${row.reason}`;
    if (!claim) problems.push(`${name}: support.json has no row; the suite saw ${saw}`);
    else if ((claim.kernels?.join() ?? "") !== (row.kernels?.join() ?? ""))
      problems.push(`${name}: support.json claims ${claim.kernels?.join(", ") ?? `none: ${claim.reason}`}; the suite saw ${saw}`);
  }
  return problems;
}

const everyVariant = (): { op: Op; variant: string }[] =>
  ops.flatMap((op) => variants(op).map((variant) => ({ op, variant: variantKey(op, variant) })));
