import { BlockNumbers, type KvTrace, TraceBuilder } from "../trace.js";
import { eachLine, finite, list, parsed, type TraceText, whole, wrong } from "./lines.js";

/**
 * RAGPulse's trace (arXiv 2511.12979): one request a line, `{"timestamp", "hash_ids": {kind: [id, ...], ...},
 * "session_id"}`. The ids of a request follow each other in the order its kinds are written. Requests are sorted by
 * timestamp; equal ones stay as in the file.
 */
export async function readRagpulse(text: TraceText, where = "ragpulse trace"): Promise<KvTrace> {
  const found: { time: number; ids: number[]; session: string | undefined }[] = [];
  await eachLine(text, where, (line, number) => {
    const here = `${where}, line ${number}`;
    const { timestamp, hash_ids: kinds, session_id: session } = parsed(line, here);
    if (typeof kinds !== "object" || kinds === null || Array.isArray(kinds)) throw wrong(here, "hash_ids: an object of arrays", kinds);
    const ids = Object.entries(kinds).flatMap(([kind, values]) =>
      list(values, here, `hash_ids.${kind}`).map((id) => whole(id, here, `hash_ids.${kind}`)),
    );
    found.push({ time: finite(timestamp, here, "timestamp"), ids, session: typeof session === "string" ? session : undefined });
  });
  found.sort((a, b) => a.time - b.time);
  const builder = new TraceBuilder();
  const numbers = new BlockNumbers<number>();
  const sessions = new BlockNumbers<string>();
  for (const { ids, session } of found) {
    for (const id of ids) builder.block(numbers.of(id));
    builder.end(session === undefined ? {} : { session: sessions.of(session) });
  }
  return builder.finish(numbers.ranks());
}
