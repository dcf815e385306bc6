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
  const tokenizer = () =>
    new Option("--tokenizer <file>", "tokenizer.bin or tokenizer.json; default: the model's own, or the one beside it");
  const hostBackend = () => new Option("--backend <id>", "native, wasm or js; default: the fastest");

  const promptFiles = () =>
    new Option("--prompt-file <file>", "the text that the model reads; may be given several times").argParser(
      (file: string, before: string[] | undefined) => [...(before ?? []), file],
    );
  const ofTexts = () =>
    new Option("--texts <how>", "several texts: the mean, or the worst of them").choices(["mean", "worst"]).default("mean");

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

  const search = program.command("search").description("build an index from a file of vectors, and search in it");
  search
    .command("build")
    .description("write an index of the vectors in a .npy, .safetensors, .fvecs or .bvecs file")
    .argument("<vectors>", "the file")
    .addOption(new Option("--kind <kind>", "how the index works").choices(["flat"]).default("flat"))
    .addOption(new Option("--metric <metric>", "how vectors are compared").choices(["cos", "ip", "l2"]).default("cos"))
    .addOption(new Option("--dtype <dtype>", "how vectors are stored").choices(["f32", "f16", "i8"]).default("f32"))
    .requiredOption("--out <file>", "where the index goes")
    .option("--ids <file>", "ids of the vectors, one a line; default: their numbers")
    .option("--tensor <name>", "which tensor of a .safetensors file that has several")
    .option("--backend <id>", "cuda, native, webgpu, wasm or js; default: the fastest by prediction")
    .addOption(json())
    .action(async (vectors, options) => (await import("./search.js")).build(vectors, options));
  search
    .command("query")
    .description("search an index; queries a second, latencies, and recall where the truth is given")
    .argument("<index>", "what `search build` wrote")
    .argument("<queries>", "a file of vectors")
    .option("-k <number>", "results a query", "10")
    .option("--truth <file>", "row numbers of the true nearest, best first, for each query: .ivecs or .npy")
    .option("--batch <number>", "queries in one call", "1")
    .option("--tensor <name>", "which tensor of a .safetensors file that has several")
    .option("--backend <id>", "cuda, native, webgpu, wasm or js; default: the fastest by prediction")
    .option("--out <file>", "also write the results as JSON")
    .addOption(json())
    .action(async (index, queries, options) => (await import("./search.js")).query(index, queries, options));
  program
    .command("kv")
    .description("KV-cache: replay traces of requests")
    .command("replay")
    .description("replay a trace through eviction policies: hits, hit ratio, misses over Belady's")
    .argument("<trace>", "file, gzipped or not")
    .addOption(
      new Option("--format <name>", "what the file is").choices(["mooncake", "weka", "ragpulse", "libcachesim"]).makeOptionMandatory(),
    )
    .option("--policy <list>", "all, or some of lru,fifo,lfu,sieve,s3fifo,arc,gdsf,hazard,belady,belady-bypass", "all")
    .option("--capacity <list>", "blocks, or percentages of the unique blocks", "1%,2%,5%,10%,20%,50%")
    .addOption(new Option("--semantics <name>", "what counts as a hit").choices(["flat", "prefix", "req"]).default("flat"))
    .option("--leaf-safe", "children leave before parents, blocks of the running request stay")
    .option("--no-hints", "policies do not see how replies ended")
    .addOption(json())
    .action(async (trace, options) => (await import("./kv.js")).kvReplay(trace, options));
  program
    .command("moe")
    .description("mixture of experts: replay routing traces against expert caches")
    .command("replay")
    .description("hit ratio, bytes and stall of expert caches on a routing trace (MOETRC1, CSV or JSON, may be gzipped)")
    .argument("<trace>", "the trace's file")
    .option("--format <name>", "moetrc, csv or json; default by the file's name")
    .option("--cache <list>", "policies: lru, lfu, lfru, ema, belady, belady-bypass, or all", "lru,ema,belady,belady-bypass")
    .option("--predictor <list>", "also judge predictors: previous, ema, frequency, token, pair, ridge, or all")
    .option("--capacity <list>", "slots of each layer; default a quarter of the experts")
    .option("--bandwidth <GB/s>", "from where experts are loaded", "24")
    .option("--layer-time <us>", "compute of one layer", "132")
    .option("--expert-bytes <n>", "weights of one expert; default that of gpt-oss-20b in mxfp4", "13219200")
    .option("--decay <number>", "of ema: what a use counts one token later", "0.98")
    .addOption(json())
    .action(async (trace, options) => (await import("./moe-replay.js")).moeReplay(trace, options));
  const attend = program.command("attention").description("which layers of a model attend to the same tokens, and policies made from that");
  attend
    .command("profile")
    .description("measure how much layers attend to the same tokens: a model over a text, or a file of queries and keys")
    .argument("<source>", "a model (with --prompt-file), or a .safetensors or .npz of queries.N, keys.N, values.N")
    .addOption(promptFiles())
    .option("--prompt <text>", "the same, here")
    .addOption(tokenizer())
    .addOption(hostBackend())
    .option("-k <n>", "tokens of a list", "128")
    .option("--ratio <x>", "or this share of the context, where that is more", "0")
    .option("--granularity <n>", "tokens that are listed together", "16")
    .option("--sink <n>", "first tokens that are always listed", "0")
    .option("--recent <n>", "last tokens that are always listed", "1")
    .option("--shared", "one list for all heads, not one for each KV head")
    .option("--queries <n>", "positions that are looked at, at most", "64")
    .option("--first <n>", "the first of them; default: half of the text")
    .option("--no-outputs", "without the error of outputs, which takes most of the time")
    .addOption(ofTexts())
    .option("--kl", "also how far the next token's distribution moves with each layer alone over its lists, by the model")
    .option("--kl-tokens <n>", "last tokens of each text that are decoded for that", "64")
    .option("--out <file>", "where the profile goes", "profile.json")
    .option("--dump <file>", "also write queries, keys, values and outputs, as .safetensors")
    .option("--html <file>", "also write a page with heat maps and a policy")
    .addOption(json())
    .action(async (source, options) => (await import("./attention-profile.js")).profileCommand(source, options));
  attend
    .command("policy")
    .description("make a policy.json from a profile by a search, or from a file of another system")
    .argument("<files...>", "profile.json files of one model, or the file to import")
    .addOption(ofTexts())
    .addOption(
      new Option("--search <name>", "how the layers that make lists are found").choices(["hylra", "ucm", "kascade", "pairs", "greedy"]),
    )
    .addOption(new Option("--import <format>", "what the file is").choices(["ucm", "kascade", "indexer", "hshare", "minference", "duo"]))
    .option("--threshold <x>", "hylra: least similarity of a layer to the list it takes", "0.85")
    .option("--resets <n>", "ucm: lists besides layer 0's, at most")
    .option("--anchors <n>", "kascade, greedy: lists")
    .option("--merges <n>", "pairs: layers that take a list")
    .addOption(new Option("--measure <name>", "what similarity is").choices(["mass", "overlap", "kept", "kl", "rnmse"]).default("mass"))
    .addOption(new Option("--heads <how>", "how the heads of a layer count together").choices(["mean", "min"]).default("mean"))
    .option("--no-head-maps", "each head takes the list of its own number")
    .option("--own <list>", "layers that make a list of their own")
    .option("--sensitive <n>", "so many more: the most sensitive ones")
    .addOption(
      new Option("--sensitive-by <what>", "by the share of the context for 90 % of the mass, or by what their own lists cost")
        .choices(["spread", "rnmse", "kl", "tokenKl"])
        .default("spread"),
    )
    .option("--full <list>", "layers that attend to everything")
    .addOption(new Option("--attends <what>", "what layers with a list attend to").choices(["all", "list"]).default("all"))
    .option("--min-context <n>", "dense while the context is shorter", "0")
    .option("--refresh-every <n>", "steps that a list serves", "1")
    .option("--context <n>", "at which the cost is given; default: the profile's, or 32768")
    .option("--model <file>", "measures the loss of the policy, and of those that greedy and --repair try")
    .option("--text-file <file>", "the text for that; best one that was not profiled")
    .option("--from <n>", "tokens of it that are the prompt; default: half")
    .addOption(tokenizer())
    .addOption(hostBackend())
    .option("--max-loss <x>", "greedy: ends before the loss rises by more, in nats a token")
    .option("--repair <x>", "change the policy found until the loss rises by no more")
    .option("--out <file>", "where the policy goes", "policy.json")
    .option("--html <file>", "also write a page with heat maps and the policy")
    .addOption(json())
    .action(async (files, options) => (await import("./attention-policy.js")).policyCommand(files, options));
  attend
    .command("onnx")
    .description("run ONNX's test cases through the attention ops, on every backend: what passes, what fails, what has no op")
    .argument("<paths...>", "folders of node tests (model.onnx, test_data_set_0), folders of such, or .jsonc files of ONNX Runtime")
    .option("--backend <id>", "cuda, native, webgpu, wasm or js; default: all that this machine has")
    .addOption(json())
    .action(async (paths, options) => (await import("./attention-onnx.js")).onnxCommand(paths, options));
  program
    .command("run")
    .description("continue a text with a model of Llama's architecture")
    .argument("<model>", "a llama2.c .bin, a .gguf, a .safetensors, or a folder of these with config.json")
    .requiredOption("--prompt <text>", "the text to continue")
    .addOption(tokenizer())
    .option("--max-tokens <n>", "tokens to generate, at most", "256")
    .option("--temperature <x>", "what logits are divided by; 0 is greedy", "0")
    .option("--top-k <n>", "best tokens that are kept; 0 for all", "0")
    .option("--top-p <x>", "share of the probability that is kept", "1")
    .option("--min-p <x>", "least probability that is kept, of the largest", "0")
    .option("--seed <n>", "the same seed gives the same text", "0")
    .option("--context <n>", "tokens of the cache; default: what the model was made for")
    .addOption(
      new Option("--evict <method>", "tokens leave the cache; positions stay those of the text").choices(["snapkv", "streaming-llm"]),
    )
    .option("--budget <n>", "tokens that stay: of the prompt (snapkv), or at any time (streaming-llm)")
    .option("--policy <file>", "policy.json: which layers attend to everything, list what weighed most, or attend to a list")
    .option("--backend <id>", "cuda, native, webgpu, wasm or js; default: the fastest by prediction")
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
