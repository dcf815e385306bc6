/** What `hotset attention profile` measures: a record in a file, or a model that reads a text. */
import {
  attention,
  FormatError,
  HotsetError,
  openModel,
  PolicyLoss,
  type RecordedAttention,
  recordAttention,
  type TextDivergence,
} from "@hotset/core";
import { readWhole } from "@hotset/core/node";
import { findHotset } from "../discover.js";
import { findModel, text as readText } from "./model-files.js";

export interface SourceOptions {
  readonly prompt?: string;
  readonly promptFile?: readonly string[];
  readonly tokenizer?: string;
  readonly backend?: string;
}

/** The record of a .safetensors or .npz file, or those of a model over texts, which are cut at its context. */
export async function attentionOf(path: string, options: SourceOptions): Promise<readonly attention.AttentionRecord[]> {
  const texts = textsOf(options);
  if (texts.length > 0) return recorded(path, texts, options);
  if (path.endsWith(".npz")) return [await fromNpz(path)];
  if (path.endsWith(".safetensors")) return [await attention.readRecord(read(path), path)];
  throw new Error(
    `attention profile: expected --prompt-file FILE for a model, or a .safetensors or .npz of queries and keys, but received ${path}`,
  );
}

function textsOf({ prompt, promptFile = [] }: SourceOptions): string[] {
  if (prompt !== undefined && promptFile.length > 0) throw new Error("--prompt: expected no --prompt-file beside it");
  return prompt !== undefined ? [prompt] : promptFile.map(readText);
}

async function recorded(
  path: string,
  texts: readonly string[],
  { tokenizer: tokenizerPath, backend }: SourceOptions,
): Promise<readonly attention.AttentionRecord[]> {
  const hotset = await findHotset();
  try {
    const { loaded, tokenizer } = await findModel(path, tokenizerPath);
    let recorder: RecordedAttention | undefined;
    const model = await openModel(loaded, {
      hotset,
      backend,
      tokenizer,
      attention: async (context) => {
        recorder = await recordAttention(context);
        return recorder;
      },
    });
    const { forward } = model;
    const records: attention.AttentionRecord[] = [];
    for (const text of texts) {
      const tokens = model.tokenizer.encode(text).slice(0, model.context);
      if (tokens.length === 0)
        throw new HotsetError("argument", { where: "attention profile", expected: "a text with a token", received: JSON.stringify(text) });
      forward.begin(tokens.length);
      for (let at = 0; at < tokens.length; at += forward.chunk) await forward.run(tokens.slice(at, at + forward.chunk), false);
      records.push((recorder as RecordedAttention).record(path.split(/[\\/]/).at(-1) as string));
    }
    model.dispose();
    return records;
  } finally {
    hotset.dispose();
  }
}

/** What each layer does to the model's next token when it alone attends to its lists: over the last `tokens` of each text. */
export async function tokenKlOf(
  path: string,
  profile: attention.LayerProfile,
  tokens: number,
  options: SourceOptions,
  progress: (done: number, total: number) => void,
): Promise<attention.TokenKl> {
  const texts = textsOf(options);
  if (texts.length === 0) throw new Error("--kl: expected a model and --prompt-file FILE: what the next token is, only a model knows");
  const hotset = await findHotset();
  try {
    const { loaded, tokenizer } = await findModel(path, options.tokenizer);
    const losses = await PolicyLoss.open(loaded, { hotset, backend: options.backend, tokenizer });
    const ids = texts.map((text) => losses.encode(text));
    const policies = profile.layers.map((_, layer) => attention.onlySparse(profile, layer));
    // Texts differ in length; each is read densely up to its own last tokens.
    const found: (readonly TextDivergence[])[] = [];
    for (const [i, text] of ids.entries()) {
      const told = (done: number) => progress(i * policies.length + done, ids.length * policies.length);
      found.push(await losses.divergences(policies, { texts: [text], from: text.length - tokens }, told));
    }
    losses.dispose();
    const rounded = (value: number): number => Number(value.toPrecision(6));
    return {
      tokens: tokens * ids.length,
      layers: policies.map((_, layer) => {
        const own = found.map((one) => one[layer] as (typeof one)[number]);
        return {
          mean: rounded(own.reduce((sum, { mean }) => sum + mean, 0) / own.length),
          worst: rounded(Math.max(...own.map(({ worst }) => worst))),
        };
      }),
    };
  } finally {
    hotset.dispose();
  }
}

/** Most bytes of what an archive unpacks to. */
const largest = 2 ** 31;

/** NumPy's archive of arrays q0, k0, v0, ... (or queries.0, ...). What has other names is not unpacked. */
async function fromNpz(path: string): Promise<attention.AttentionRecord> {
  const { unzipSync } = await import("fflate");
  const bytes = read(path);
  let total = 0;
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(bytes, {
      filter: ({ name, originalSize }) => {
        if (!/^(q|k|v|o|(queries|keys|values|out)\.)\d+\.npy$/.test(name)) return false;
        total += originalSize;
        if (total > largest)
          throw new FormatError({ where: path, expected: `arrays of at most ${largest} bytes`, received: `${total} and more` });
        return true;
      },
    });
  } catch (cause) {
    if (cause instanceof HotsetError) throw cause;
    throw new FormatError({ where: path, expected: "a .npz archive", received: (cause as Error).message, cause });
  }
  const tensors = new Map<string, attention.NamedArray>();
  for (const [name, file] of Object.entries(files)) {
    const where = `${path}: ${name}`;
    const array = attention.readNpy(file, where);
    const data = attention.npyNumbers(array, where);
    if (!(data instanceof Float32Array)) throw new FormatError({ where, expected: "elements of <f4", received: array.dtype });
    tensors.set(name.slice(0, -4), { shape: array.shape, data });
  }
  return attention.recordOf(tensors, path, { model: path.split(/[\\/]/).at(-1) as string });
}

export function read(path: string): Uint8Array {
  try {
    return readWhole(path);
  } catch (cause) {
    if (cause instanceof HotsetError) throw cause;
    throw new HotsetError("argument", { where: path, expected: "a file that can be read", received: (cause as Error).message, cause });
  }
}
