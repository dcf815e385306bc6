/**
 * Continues a text with a model of Llama's architecture, token by token:
 *
 *   node examples/dist/run-model.js [model] [prompt]
 *
 * `model`: a llama2.c .bin with tok<vocabulary>.bin beside it, or a .gguf. Default: stories260K in ../shared/data/weights.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModel, readModel } from "hotset";

const stories = fileURLToPath(new URL("../../../shared/data/weights/stories260K.bin", import.meta.url));
const [path = stories, prompt = "Once upon a time"] = process.argv.slice(2);
if (!existsSync(path)) {
  console.error(`run-model: expected a model file but there is no ${path}`);
  process.exit(1);
}

const loaded = readModel(readFileSync(path));
const tokenizer = loaded.tokenizer ?? readFileSync(join(dirname(path), `tok${loaded.config.vocab}.bin`));
const model = await openModel(loaded, { tokenizer });

// Ctrl-C ends the text, not the program.
const stop = new AbortController();
process.once("SIGINT", () => stop.abort());

process.stdout.write(prompt);
const start = performance.now();
let tokens = 0;
try {
  for await (const { text } of model.tokens(prompt, { maxTokens: 200, signal: stop.signal })) {
    process.stdout.write(text);
    tokens++;
  }
} catch (error) {
  if (!stop.signal.aborted) throw error;
}
const seconds = (performance.now() - start) / 1e3;
console.log(`\n\n${tokens} tokens in ${seconds.toFixed(2)} s on ${model.backend}`);
model.dispose();
process.exit();
