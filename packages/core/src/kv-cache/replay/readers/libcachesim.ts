import { FormatError } from "../../../errors.js";
import { BlockNumbers, type KvTrace, TraceBuilder } from "../trace.js";
import { eachLine, type TraceText } from "./lines.js";

/**
 * libCacheSim's csv: rows `time,object,size`, with a header or none. Each row is a request of one block; sizes are
 * checked and not used, as blocks have one size. Objects may be any text.
 */
export async function readLibCacheSim(text: TraceText, where = "libcachesim trace"): Promise<KvTrace> {
  const builder = new TraceBuilder();
  const names = new BlockNumbers<string>();
  const ids = new BlockNumbers<number>();
  let numeric = true;
  await eachLine(text, where, (line, number) => {
    const cells = line.split(",").map((cell) => cell.trim());
    const [time, object, size] = cells;
    const sound = cells.length === 3 && isNumber(time) && object !== "" && isNumber(size);
    // A header is a first line whose time and size are words.
    if (!sound && number === 1 && cells.length === 3 && !isNumber(time) && !isNumber(size)) return;
    if (!sound)
      throw new FormatError({
        where: `${where}, line ${number}`,
        expected: "time,object,size",
        received: JSON.stringify(line.slice(0, 60)),
      });
    const id = Number(object);
    if (!(Number.isSafeInteger(id) && id >= 0 && String(id) === object)) numeric = false;
    else if (numeric) ids.of(id);
    builder.block(names.of(object as string));
    builder.end();
  });
  // Where all are plain numbers, a larger number is a larger id; both tables counted alike until then.
  return builder.finish(numeric ? ids.ranks() : undefined);
}

const isNumber = (text: string | undefined): boolean => text !== undefined && text !== "" && Number.isFinite(Number(text));
