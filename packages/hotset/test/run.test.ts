/** `hotset run` as a command: text, JSON, bad input, an interrupt. */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { tensorsOf, writeSafetensors } from "./support/stored-model.js";
import { tinyModel, tinyTokenizer } from "./support/tiny-model.js";

const command = fileURLToPath(new URL("../bin/hotset.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "hotset-run-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const bytes = tinyModel("a model to run", { dim: 64, hidden: 96, heads: 8 });
const model = join(folder, "tiny.bin");
writeFileSync(model, bytes);
writeFileSync(join(folder, "tok300.bin"), tinyTokenizer());

const hotset = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, "run", ...args], {
    encoding: "utf8",
    env: { ...process.env, HOTSET_CACHE_DIR: folder },
    timeout: 120_000,
  });
  return { status, stdout, stderr };
};
const json = (...args: string[]) => JSON.parse(hotset(...args, "--json").stdout);

describe("hotset run", () => {
  it("prints the prompt, what follows, and a line of figures", () => {
    const { status, stdout, stderr } = hotset(model, "--prompt", "abc", "--max-tokens", "9", "--backend", "js");
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout.startsWith("abc")).toBe(true);
    expect(stdout).toMatch(/\n\n\d tokens on js, \d+ a second, the first after [\d.]+ ms \(.+\)\n$/);
  });

  it("prints one JSON document, with the same text on every backend", () => {
    const texts = ["js", "native", "wasm"].map((backend) => {
      const {
        text,
        tokens,
        promptTokens,
        stopped,
        backend: ran,
      } = json(model, "--prompt", "abc ab", "--max-tokens", "20", "--backend", backend);
      expect([ran, tokens > 0, promptTokens > 1, ["maxTokens", "end"].includes(stopped)]).toEqual([backend, true, true, true]);
      return text;
    });
    expect(new Set(texts).size).toBe(1);
  });

  it("draws by the seed", () => {
    const draw = (seed: string) =>
      json(model, "--prompt", "ab", "--temperature", "3", "--top-k", "50", "--seed", seed, "--max-tokens", "12").text;
    expect(draw("5")).toBe(draw("5"));
    expect(new Set(["5", "6", "7"].map(draw)).size).toBeGreaterThan(1);
  });

  it("runs a folder of safetensors with a tokenizer of the library", () => {
    const place = join(folder, "hugging-face");
    mkdirSync(place);
    writeFileSync(join(place, "model.safetensors"), writeSafetensors(tensorsOf(bytes)));
    const config = {
      model_type: "llama",
      hidden_size: 64,
      intermediate_size: 96,
      num_hidden_layers: 3,
      num_attention_heads: 8,
      num_key_value_heads: 2,
      vocab_size: 300,
      max_position_embeddings: 128,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: true,
    };
    writeFileSync(join(place, "config.json"), JSON.stringify(config));
    const letters = Object.fromEntries(Array.from({ length: 300 }, (_, id) => [id < 26 ? String.fromCharCode(97 + id) : `<${id}>`, id]));
    const tokenizer = {
      version: "1.0",
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: { type: "Fuse" },
      model: { type: "BPE", unk_token: "<26>", vocab: letters, merges: [], ignore_merges: false, fuse_unk: false, byte_fallback: false },
    };
    writeFileSync(join(place, "tokenizer.json"), JSON.stringify(tokenizer));
    const { format, text, promptTokens, tokens } = json(place, "--prompt", "abc", "--max-tokens", "8", "--backend", "native");
    expect([format, promptTokens, tokens]).toEqual(["safetensors llama", 3, 8]);
    expect(text.length).toBeGreaterThan(0);
  });

  it("refuses bad input in one line", () => {
    const refused = (message: RegExp, ...args: string[]) => {
      const { status, stdout, stderr } = hotset(...args);
      expect(status).not.toBe(0);
      expect(stdout).toBe("");
      expect(stderr.trim()).toMatch(message);
      expect(stderr.trim().split("\n").length).toBe(1);
    };
    writeFileSync(join(folder, "cut.bin"), bytes.subarray(0, 1000));
    refused(/a file of \d+ bytes by its header but received 1000 bytes/, join(folder, "cut.bin"), "--prompt", "a", "--json");
    refused(/can be read/, join(folder, "none.bin"), "--prompt", "a", "--json");
    refused(/a prompt of at most 127 tokens/, model, "--prompt", "ab".repeat(300), "--json");
    refused(/--max-tokens: expected a number/, model, "--prompt", "a", "--max-tokens", "many", "--json");
    refused(/a backend/, model, "--prompt", "a", "--backend", "abacus", "--json");
    writeFileSync(join(folder, "x.txt"), "no model");
    refused(/a llama2\.c, GGUF or safetensors model/, join(folder, "x.txt"), "--prompt", "a", "--json");
  });

  it("ends cleanly at an interrupt", async () => {
    // A long text: many draws from nearly even odds, so that it does not end by itself at once.
    const child = spawn(
      process.execPath,
      [command, "run", model, "--prompt", "abc", "--temperature", "5", "--max-tokens", "100", "--backend", "js", "--json"],
      {
        env: { ...process.env, HOTSET_CACHE_DIR: folder },
      },
    );
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
    });
    const timer = setTimeout(() => child.kill("SIGINT"), 700);
    const status = await new Promise((resolve) => child.on("close", resolve));
    clearTimeout(timer);
    // Too late, or too early for the handler, on a busy machine: then it ended, or was ended, as a whole.
    if (out !== "") expect(["interrupted", "end", "maxTokens", "context"]).toContain(JSON.parse(out).stopped);
    expect([0, 130, null]).toContain(status);
  });
});
