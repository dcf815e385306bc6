/** What the subcommands print with. */
import { SingleBar } from "cli-progress";

/** Columns padded to their widest cell; numbers are given as text. */
export function table(rows: readonly (readonly string[])[], rightAligned: readonly number[] = []): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => [...(row[column] ?? "")].length)));
  const cell = (text: string, column: number): string => {
    const space = " ".repeat((widths[column] ?? 0) - [...text].length);
    return rightAligned.includes(column) ? space + text : text + space;
  };
  return rows
    .map((row) =>
      row
        .map((text, column) => cell(text, column))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** One JSON document on stdout, or text. */
export function print(json: boolean | undefined, document: unknown, text: () => string): void {
  console.log(json ? JSON.stringify(document, null, 2) : text());
}

export interface Progress {
  step(done: number, total: number, what: string): void;
  stop(): void;
}

/** A bar on stderr where that is a terminal; silent elsewhere and under --json. */
export function progress(json: boolean | undefined): Progress {
  if (json || !process.stderr.isTTY) return { step() {}, stop() {} };
  const bar = new SingleBar({ format: "{bar} {value}/{total} {what}", clearOnComplete: true, hideCursor: true, stream: process.stderr });
  let started = false;
  return {
    step(done, total, what) {
      if (!started) bar.start(total, done, { what });
      else bar.update(done, { what });
      started = true;
    },
    stop: () => bar.stop(),
  };
}

/** `name=value,other=3` as a record. */
export function pairs(list: string, flag: string): Record<string, string> {
  const out: Record<string, string> = {};
  for (const part of list.split(",").filter((text) => text.trim() !== "")) {
    const [name, value, ...rest] = part.split("=").map((text) => text.trim());
    if (!name || value === undefined || value === "" || rest.length)
      throw new Error(`${flag}: expected name=value,... but received ${JSON.stringify(part)}`);
    out[name] = value;
  }
  return out;
}
