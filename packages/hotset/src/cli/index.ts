/** The `hotset` command. Each subcommand's module is loaded when it is called. */
import { Command, CommanderError, Option } from "commander";
import { version } from "../discover.js";

export interface CommonOptions {
  readonly json?: boolean;
}

/** Runs the command; the exit status is set, and errors are one line on stderr. */
export async function main(argv: readonly string[]): Promise<void> {
  const program = new Command("hotset")
    .description("Fast attention, KV-cache, expert and vector-search kernels: what this machine runs, how fast, and why.")
    .version(version)
    .showHelpAfterError("(hotset --help lists the commands)")
    .exitOverride();

  const json = () => new Option("--json", "print one JSON document on stdout, and nothing else");

  program
    .command("doctor")
    .description("list the backends, their features and devices, and why each missing one is missing")
    .addOption(json())
    .action(async (options) => (await import("./doctor.js")).doctor(options));

  program
    .command("calibrate")
    .description("measure this machine and write the speeds that the choice between backends is made by")
    .addOption(json())
    .action(async (options) => (await import("./calibrate.js")).calibrateCommand(options));

  program
    .command("explain")
    .description("show every backend's predicted time for an op, and which one is chosen")
    .argument("<op>", "such as search/scan")
    .requiredOption("--axes <list>", "sizes: batch=1,count=100000,dim=128,k=10")
    .option("--variant <list>", "dtypes, options and optional tensors: rows=f16,metric=cos,filter=true", "")
    .option("--resident <ports>", "tensors that already lie in the backend's memory: rows", "")
    .addOption(json())
    .action(async (op, options) => (await import("./explain.js")).explain(op, options));

  program
    .command("bench")
    .description("check, then time every op on every backend; GB/s, GFLOP/s and share of this machine's limit")
    .option("--op <glob>", "ops to run, such as 'search/*'", "*")
    .option("--case <text>", "only cases whose name contains this")
    .option("--backend <list>", "backends, comma-separated; default all")
    .option("--time <ms>", "milliseconds of measuring for each row", "400")
    .option("--peers", "also time what one would use instead (from a checkout of the repository)")
    .option("--selection", "report the regret of the choice between backends")
    .option("--out <file>", "also write the results as JSON")
    .addOption(json())
    .action(async (options) => (await import("./bench.js")).bench(options));

  program
    .command("run")
    .description("continue a text with a model of Llama's architecture")
    .argument("<model>", "a llama2.c .bin, a .gguf, a .safetensors, or a folder of these with config.json")
    .requiredOption("--prompt <text>", "the text to continue")
    .option("--tokenizer <file>", "tokenizer.bin or tokenizer.json; default: the model's own, or the one beside it")
    .option("--max-tokens <n>", "tokens to generate, at most", "256")
    .option("--temperature <x>", "what logits are divided by; 0 is greedy", "0")
    .option("--top-k <n>", "best tokens that are kept; 0 for all", "0")
    .option("--top-p <x>", "share of the probability that is kept", "1")
    .option("--min-p <x>", "least probability that is kept, of the largest", "0")
    .option("--seed <n>", "the same seed gives the same text", "0")
    .option("--context <n>", "tokens of the cache; default: what the model was made for")
    .option("--backend <id>", "native, wasm or js; default: the fastest")
    .addOption(json())
    .action(async (path, options) => (await import("./run.js")).runModel(path, options));

  try {
    await program.parseAsync(argv);
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed its message; help and version are no failures.
      process.exitCode = error.exitCode;
      return;
    }
    console.error(`hotset: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}
