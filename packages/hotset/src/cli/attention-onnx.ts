/** `hotset attention onnx`: test cases of ONNX through Hotset's ops, on every backend of this machine. */
import { type Hotset, HotsetError } from "@hotset/core";
import { findHotset } from "../discover.js";
import { findCases } from "../onnx/cases.js";
import { type CaseResult, runCase, type Status } from "../onnx/run.js";
import type { CommonOptions } from "./index.js";
import { print, progress, table } from "./output.js";

export interface OnnxOptions extends CommonOptions {
  readonly backend?: string;
}

export interface BackendResults {
  readonly backend: string;
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly unsupported: number;
  /** Of the unsupported: how many of each kind. */
  readonly kinds: Readonly<Record<string, number>>;
  readonly cases: readonly CaseResult[];
}

export async function onnxCommand(paths: readonly string[], options: OnnxOptions): Promise<void> {
  const found = paths.flatMap(findCases);
  const hotset = await findHotset();
  const bar = progress(options.json);
  try {
    const chosen = backendsOf(hotset, options.backend);
    const results: BackendResults[] = [];
    for (const { id, name } of chosen) {
      const cases: CaseResult[] = [];
      for (const one of found) {
        bar.step(cases.length + results.length * found.length, found.length * chosen.length, `${id}: ${one.name}`);
        cases.push(await runCase(one, hotset, id));
      }
      results.push(summed(id, name, cases));
    }
    bar.stop();
    const missing = options.backend === undefined ? hotset.missing : [];
    print(options.json, { paths, backends: results, missing }, () =>
      [...results.map(described), ...missing.map(({ id, reason }) => `${id}: not here: ${reason}`), "", ...results.map(summary)].join("\n"),
    );
    if (results.some(({ failed }) => failed > 0)) process.exitCode = 1;
  } finally {
    bar.stop();
    hotset.dispose();
  }
}

function backendsOf({ backends, missing }: Hotset, wanted: string | undefined): Hotset["backends"] {
  if (wanted === undefined) return backends;
  const found = backends.filter(({ id }) => id === wanted);
  if (found.length > 0) return found;
  throw new HotsetError("argument", {
    where: "--backend",
    expected: `one of ${backends.map(({ id }) => id).join(", ")}`,
    received: wanted,
    ...missing.filter(({ id }) => id === wanted).map(({ reason }) => ({ hint: reason }))[0],
  });
}

function summed(backend: string, name: string, cases: readonly CaseResult[]): BackendResults {
  const count = (status: Status): number => cases.filter((one) => one.status === status).length;
  const kinds: Record<string, number> = {};
  for (const { kind } of cases) if (kind !== null) kinds[kind] = (kinds[kind] ?? 0) + 1;
  return { backend, name, passed: count("passed"), failed: count("failed"), unsupported: count("unsupported"), kinds, cases };
}

const described = ({ backend, name, cases }: BackendResults): string =>
  [
    `${backend} (${name})`,
    table(cases.map(({ status, name: test, reason, kind, via }) => [`  ${status}`, test, kind ?? reason ?? via.join("; ")])),
    "",
  ].join("\n");

function summary({ backend, passed, failed, unsupported, kinds }: BackendResults): string {
  const why = Object.entries(kinds).map(([kind, count]) => `${count} ${kind}`);
  return `${backend}: ${passed} passed, ${failed} failed, ${unsupported} unsupported${why.length ? ` (${why.join(", ")})` : ""}`;
}
