/** Finding a model's files: one file, or a folder of safetensors with its config.json and tokenizer. */
import { existsSync, statSync } from "node:fs";
import { dirname, join, resolve, sep } from "node:path";
import { FormatError, type LoadedModel, readModel, type TokenDecoder, type Tokenizer } from "@hotset/core";
import { readWhole } from "@hotset/core/node";

export interface FoundModel {
  readonly loaded: LoadedModel;
  /** Undefined where the model file holds its own. */
  readonly tokenizer?: Uint8Array | Tokenizer;
}

/** Reads a model and its tokenizer: the one named, the file's own, or the one that lies beside it. */
export async function findModel(path: string, tokenizerPath: string | undefined): Promise<FoundModel> {
  const folder = isFolder(path) ? path : dirname(path);
  const safetensors = isFolder(path) || path.endsWith(".safetensors") || path.endsWith(".safetensors.index.json");
  const loaded = safetensors ? readModel(shards(path).map(read), text(join(folder, "config.json"))) : readModel(read(path));
  const given = tokenizerPath ?? (loaded.tokenizer ? undefined : tokenizerBeside(folder, loaded.config.vocab));
  if (given === undefined) return { loaded };
  return { loaded, tokenizer: given.endsWith(".json") ? await libraryTokenizer(given, folder) : read(given) };
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

function read(path: string): Uint8Array {
  try {
    return readWhole(path);
  } catch (error) {
    throw new Error(`run: expected a file that can be read but received ${path} (${(error as Error).message})`, { cause: error });
  }
}
/** A text file. Throws where it cannot be read. */
export const text = (path: string): string => new TextDecoder().decode(read(path));

function json(path: string): Record<string, unknown> {
  try {
    return JSON.parse(text(path)) as Record<string, unknown>;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new FormatError({ where: path, expected: "JSON", received: "text that is none", cause });
  }
}

/** The files of a model: one, or those its index names, which lie in its folder. */
function shards(path: string): string[] {
  if (path.endsWith(".safetensors")) return [path];
  const folder = isFolder(path) ? path : dirname(path);
  const one = join(folder, "model.safetensors");
  const index = isFolder(path) ? join(folder, "model.safetensors.index.json") : path;
  if (isFolder(path) && existsSync(one)) return [one];
  const map = json(index).weight_map;
  const names = typeof map === "object" && map !== null ? [...new Set(Object.values(map))] : [];
  if (names.length === 0 || !names.every((name) => typeof name === "string"))
    throw new FormatError({ where: index, expected: "a weight_map of tensors to files", received: "something else" });
  return (names as string[]).map((name) => {
    const file = resolve(folder, name);
    if (!file.startsWith(resolve(folder) + sep)) throw new FormatError({ where: index, expected: "files in its folder", received: name });
    return file;
  });
}

/** llama2.c's tokenizers are called tokenizer.bin, or tok512.bin for a vocabulary of 512; Hugging Face's tokenizer.json. */
function tokenizerBeside(folder: string, vocab: number): string {
  const names = [`tok${vocab}.bin`, "tokenizer.bin", "tokenizer.json"];
  const found = names.map((name) => join(folder, name)).find((file) => existsSync(file));
  if (found) return found;
  throw new Error(`run: expected --tokenizer FILE, or ${names.join(" or ")} beside the model, but received none`);
}

async function libraryTokenizer(path: string, folder: string): Promise<Tokenizer> {
  const { Tokenizer: Library } = await import("@huggingface/tokenizers");
  const settingsPath = join(dirname(path), "tokenizer_config.json");
  const settings = existsSync(settingsPath) ? json(settingsPath) : {};
  const description = json(path);
  let library: InstanceType<typeof Library>;
  try {
    library = new Library(description, settings);
  } catch (cause) {
    throw new FormatError({ where: path, expected: "a tokenizer.json", received: (cause as Error).message, cause });
  }
  const configPath = join(folder, "config.json");
  const end = existsSync(configPath) ? json(configPath).eos_token_id : undefined;
  const ends = [end, idOf(settings.eos_token)].flat().filter((id): id is number => typeof id === "number");
  function idOf(token: unknown): number | undefined {
    const name = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
    return typeof name === "string" ? library.token_to_id(name) : undefined;
  }
  let size = 0;
  for (const id of library.get_vocab(true).values()) size = Math.max(size, id + 1);
  return {
    size,
    ends: new Set(ends),
    encode: (prompt) => library.encode(prompt).ids,
    decoder: () => libraryDecoder((ids) => library.decode(ids, { skip_special_tokens: true })),
  };
}

/** Token by token through a library that decodes whole texts: what a token adds to those since the last whole character. */
function libraryDecoder(decode: (ids: number[]) => string): TokenDecoder {
  let ids: number[] = [];
  let shown = "";
  return {
    push(token) {
      ids.push(token);
      const whole = decode(ids);
      // A character that is not complete yet.
      if (whole.endsWith("\ufffd")) return "";
      const added = whole.startsWith(shown) ? whole.slice(shown.length) : "";
      shown = whole;
      if (ids.length > 16) {
        // The last tokens go on giving the context: spaces depend on the token before.
        ids = ids.slice(-4);
        shown = decode(ids);
      }
      return added;
    },
    end() {
      const whole = decode(ids);
      return whole.startsWith(shown) ? whole.slice(shown.length) : "";
    },
  };
}
