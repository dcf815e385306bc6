import { FormatError } from "../../../errors.js";

/** Text of a trace in pieces of any size, such as `createReadStream(path).setEncoding("utf8")`. */
export type TraceText = Iterable<string> | AsyncIterable<string>;

/** Longer lines are refused: one line is one request or one session, and is parsed at once. */
export const maxLine = 2 ** 28;

/** Calls `each` with every line that is not blank, and its number from 1. */
export async function eachLine(text: TraceText, where: string, each: (line: string, number: number) => void): Promise<void> {
  let rest = "";
  let number = 0;
  const give = (line: string): void => {
    number++;
    if (line.trim() !== "") each(line, number);
  };
  for await (const piece of text) {
    let from = 0;
    for (let end = piece.indexOf("\n"); end >= 0; end = piece.indexOf("\n", from)) {
      give(rest + piece.slice(from, end));
      rest = "";
      from = end + 1;
    }
    rest += piece.slice(from);
    if (rest.length > maxLine)
      throw new FormatError({ where: `${where}, line ${number + 1}`, expected: `at most ${maxLine} characters`, received: "more" });
  }
  if (rest !== "") give(rest);
}

/** The object that a line of JSON holds. */
export function parsed(line: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new FormatError({ where, expected: "one JSON object", received: JSON.stringify(line.slice(0, 40)), cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new FormatError({ where, expected: "one JSON object", received: JSON.stringify(line.slice(0, 40)) });
  return value as Record<string, unknown>;
}

/** A whole number from 0 that JSON holds exactly. */
export function whole(value: unknown, where: string, name: string): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw wrong(where, `${name}: a whole number from 0`, value);
}

export function list(value: unknown, where: string, name: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw wrong(where, `${name}: an array`, value);
}

export function finite(value: unknown, where: string, name: string): number {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number === "number" && Number.isFinite(number)) return number;
  throw wrong(where, `${name}: a number`, value);
}

export function wrong(where: string, expected: string, received: unknown): FormatError {
  return new FormatError({ where, expected, received: (JSON.stringify(received) ?? "nothing").slice(0, 60) });
}
