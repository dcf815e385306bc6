/** `npm run demo`: what this machine has, measured; real vectors searched on every backend; who was chosen, and why; the four families. */
import { Command } from "commander";
import { findHotset } from "hotset";
import { digits } from "./digits.js";
import { families } from "./families.js";
import { listBackends, measureBackends } from "./machine.js";
import { words } from "./words.js";

const program = new Command("npm run demo --")
  .description("Finds the nearest training images of a few handwritten digits on every backend of this machine.")
  .option("--words [list]", "search English word vectors instead, near these words (comma-separated)")
  .option("--data <folder>", "recorded traces and weights; what is not there is made", "../shared/data")
  .parse();
const options = program.opts<{ words?: boolean | string; data: string }>();

try {
  const hotset = await findHotset();
  listBackends(hotset);
  await measureBackends(hotset);
  if (options.words)
    await words(hotset, typeof options.words === "string" ? options.words.split(",") : ["paris", "quantum", "guitar", "tomato"]);
  else await digits(hotset);
  await families(hotset, options.data);
  hotset.dispose();
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
