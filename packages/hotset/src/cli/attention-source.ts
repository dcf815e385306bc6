/** What `hotset attention profile` measures: a record in a file, or a model that reads a text. */
import { attention, FormatError, HotsetError, openModel, type RecordedAttention, recordAttention } from "@hotset/core";
import { readWhole } from "@hotset/core/node";
import { findHotset } from "../discover.js";
import { findModel, text as readText } from "./model-files.js";

export interface SourceOptions {
  readonly prompt?: string;
  readonly promptFile?: string;
  readonly tokenizer?: string;
  readonly backend?: string;
}

/** The record of a .safetensors or .npz file, or that of a model over a text, which is cut at its context. */
export async function attentionOf(path: string, options: SourceOptions): Promise<attention.AttentionRecord> {
  const { prompt, promptFile } = options;
  if (prompt !== undefined && promptFile !== undefined) throw new Error("--prompt: expected no --prompt-file beside it");
  if (prompt === undefined && promptFile === undefined) {
    if (path.endsWith(".npz")) return fromNpz(path);
    if (path.endsWith(".safetensors")) return attention.readRecord(read(path), path);
    throw new Error(
      `attention profile: expected --prompt-file FILE for a model, or a .safetensors or .npz of queries and keys, but received ${path}`,
    );
  }
  return recorded(path, prompt ?? readText(promptFile as string), options);
}

async function recorded(
  path: string,
  text: string,
  { tokenizer: tokenizerPath, backend }: SourceOptions,
): Promise<attention.AttentionRecord> {
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
    const tokens = model.tokenizer.encode(text).slice(0, model.context);
    if (tokens.length === 0)
      throw new HotsetError("argument", { where: "attention profile", expected: "a text with a token", received: JSON.stringify(text) });
    forward.begin(tokens.length);
    for (let at = 0; at < tokens.length; at += forward.chunk) forward.run(tokens.slice(at, at + forward.chunk), false);
    const record = (recorder as RecordedAttention).record(path.split(/[\\/]/).at(-1) as string);
    model.dispose();
    return record;
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
