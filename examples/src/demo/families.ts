/** A line for each family: what its example did, on which data, in what time, its gain over the plain way, and the backend. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { attention, type Hotset, moe, search } from "hotset";
import { flatIndexLine } from "./flat-index.js";

/** `data`: a folder with recorded traces and weights; what is not there is made by the examples. */
export async function families(hotset: Hotset, data: string): Promise<void> {
  console.log("\nOne line for each family (node examples/dist/NAME.js runs it alone)");
  const cache = { batch: 1, queryHeads: 16, kvHeads: 4, headDim: 64, valueDim: 64, pages: 1024, pageSize: 16, maxPages: 1024 };
  tell(await first("attention", data), because(hotset, attention.decode, cache, { keyPages: "f32" }));
  tell(await first("kv-cache", data), "decisions about blocks are integers, made in JavaScript on every machine");
  const layer = { tokens: 1, topK: 4, experts: 32, slots: 8, dim: 384, hidden: 768, blockSize: 1, capacity: 4 };
  tell(await first("moe", data), because(hotset, moe.groupedFfn, layer, { gate: "f16" }));
  tell(
    await flatIndexLine(hotset),
    because(hotset, search.scan, { batch: 1, count: 60_000, dim: 784, k: 64 }, { rows: "i8", metric: "ip" }),
  );
  await story(data);
}

function tell(line: string, why: string): void {
  console.log(`\n  ${line.replace(/\.$/, "")}.\n  Why: ${why}.`);
}

/** What `auto` chooses for an op, and the reason it gives. */
function because(hotset: Hotset, op: Parameters<Hotset["planSync"]>[0], axes: object, variant: object): string {
  const plan = hotset.planSync(op, axes as never, variant as never);
  const { why } = plan;
  plan.dispose();
  return `${op.id}: ${why}`;
}

/** What an example says of this data: the first line that it prints. */
const first = async (name: string, data: string): Promise<string> => (await example(name, "--data", data))[0] ?? "";

/** The lines that an example prints. */
async function example(name: string, ...given: string[]): Promise<string[]> {
  const file = fileURLToPath(new URL(`../${name}.js`, import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [file, ...given]);
  return stdout.trim().split("\n");
}

/** All of them in a model that runs, where there is one. */
async function story(data: string): Promise<void> {
  const file = join(data, "weights", "stories260K.bin");
  if (!existsSync(file)) {
    console.log(
      `\n  A model: no ${file} here; npx hotset run MODEL --prompt TEXT decodes a llama2.c .bin, a GGUF or safetensors model of yours.`,
    );
    return;
  }
  const lines = await example("run-model", file);
  console.log(`\n  A model (stories260K): ${lines[0]?.slice(0, 150)} ...\n  ${lines.at(-1)}`);
}
