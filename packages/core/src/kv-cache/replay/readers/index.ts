import { HotsetError } from "../../../errors.js";
import type { KvTrace } from "../trace.js";
import { readLibCacheSim } from "./libcachesim.js";
import type { TraceText } from "./lines.js";
import { readMooncake } from "./mooncake.js";
import { readRagpulse } from "./ragpulse.js";
import { readWeka } from "./weka.js";

export type { TraceText } from "./lines.js";

const readers = { mooncake: readMooncake, weka: readWeka, ragpulse: readRagpulse, libcachesim: readLibCacheSim } as const;
export type TraceFormat = keyof typeof readers;
export const traceFormats = Object.keys(readers) as readonly TraceFormat[];

/**
 * Reads a trace from its text. `where` names it in messages, default the format.
 * Throws FormatError, naming the line, where the text is not of the format.
 */
export function readTrace(text: TraceText, format: TraceFormat, where?: string): Promise<KvTrace> {
  const read = readers[format];
  if (!read)
    throw new HotsetError("argument", {
      where: "readTrace",
      expected: `a format of ${traceFormats.join(", ")}`,
      received: JSON.stringify(format),
    });
  return read(text, where);
}
