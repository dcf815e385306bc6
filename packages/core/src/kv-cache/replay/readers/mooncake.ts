import { BlockNumbers, type KvTrace, TraceBuilder } from "../trace.js";
import { eachLine, list, parsed, type TraceText, whole } from "./lines.js";

/**
 * Mooncake's traces (FAST 2025): one request a line, `{"timestamp", "input_length", "output_length", "hash_ids"}`,
 * where an id stands for 512 tokens and all before them. Requests are kept in the file's order.
 */
export async function readMooncake(text: TraceText, where = "mooncake trace"): Promise<KvTrace> {
  const builder = new TraceBuilder();
  const numbers = new BlockNumbers<number>();
  await eachLine(text, where, (line, number) => {
    const here = `${where}, line ${number}`;
    for (const id of list(parsed(line, here).hash_ids, here, "hash_ids")) builder.block(numbers.of(whole(id, here, "hash_ids")));
    builder.end();
  });
  return builder.finish(numbers.ranks());
}
