/**
 * Tokens a second of a model on every CPU backend: `node bench/dist/figures-model.js [--data DIR] [--tokens N]`. The model
 * is DIR/weights/stories260K.bin; greedy, the same text each time, rounds of the backends in turn, medians.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findHotset, type Model, openModel } from "hotset";
import { median } from "./timing.js";

const { values } = parseArgs({
  options: {
    data: { type: "string", default: fileURLToPath(new URL("../../../shared/data", import.meta.url)) },
    tokens: { type: "string", default: "200" },
    rounds: { type: "string", default: "7" },
  },
});
const folder = join(values.data, "weights");
const [path, tokenizer] = [join(folder, "stories260K.bin"), join(folder, "tok512.bin")];

if (!existsSync(path)) {
  console.error(`figures-model: expected ${path}, but it is not there. Pass --data DIR.`);
  process.exit(1);
}
const hotset = await findHotset();
const models: Model[] = [];
for (const { id, device, name } of hotset.backends) {
  if (device) continue;
  models.push(await openModel(readFileSync(path), { hotset, backend: id, tokenizer: readFileSync(tokenizer) }));
  console.log(`${id}: ${name}`);
}
const count = Number(values.tokens);
const rates = new Map<Model, { prompt: number[]; decode: number[]; text: string }>();
const prompt =
  "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball.";
for (let round = 0; round < Number(values.rounds); round++) {
  for (const model of models) {
    const found = rates.get(model) ?? { prompt: [], decode: [], text: "" };
    rates.set(model, found);
    const start = performance.now();
    let first = start;
    let made = 0;
    let text = "";
    for await (const token of model.tokens(prompt, { maxTokens: count })) {
      if (made++ === 0) first = performance.now();
      text += token.text;
    }
    found.text = text;
    found.prompt.push(model.tokenizer.encode(prompt).length / ((first - start) / 1e3));
    found.decode.push((made - 1) / ((performance.now() - first) / 1e3));
  }
}
for (const [{ backend }, { prompt: read, decode }] of rates)
  console.log(
    `${backend.padEnd(8)} ${median(decode).toFixed(0).padStart(7)} tokens a second, prompt ${median(read).toFixed(0).padStart(7)} (medians of ${decode.length} rounds)`,
  );
console.log(new Set([...rates.values()].map(({ text }) => text)).size === 1 ? "The text is the same on all of them." : "The texts differ!");
for (const model of models) model.dispose();
hotset.dispose();
