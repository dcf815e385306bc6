import { FormatError } from "../../errors.js";

/** Which experts a model's router picked: what a replay, a predictor or a placement learns from. */
export interface MoeTrace {
  readonly model: string;
  readonly layers: number;
  /** Experts of each layer. */
  readonly experts: number;
  /** Experts that each token uses in each layer. */
  readonly topK: number;
  readonly tokens: number;
  /** Runs of tokens that belong together, ascending and apart. */
  readonly sequences: readonly Sequence[];
  /** [tokens, layers, topK]: expert numbers, distinct within a row. */
  readonly ids: Uint8Array | Uint16Array;
  /** [tokens]: vocabulary numbers, where the source recorded them; 2^32 - 1 where it does not know one. */
  readonly tokenIds?: Uint32Array;
}

export interface Sequence {
  readonly start: number;
  readonly length: number;
}

/** Bounds that any real model is far below: they keep products of header fields exact. */
export const traceLimits = { layers: 4096, experts: 65535, tokens: 2 ** 31 - 1 } as const;

/** A whole number from `min` to `max`, or FormatError. */
export function wholeNumber(value: unknown, min: number, max: number, where: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max)
    throw new FormatError({ where, expected: `a whole number from ${min} to ${max}`, received: shown(value) });
  return value;
}

/** A value from an untrusted file, short enough for a message. */
export function shown(value: unknown): string {
  const text =
    typeof value === "string" ? JSON.stringify(value) : typeof value === "object" && value !== null ? "an object" : String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Checks that every expert exists and that no row names one twice; throws FormatError with the first that does not hold. */
export function checkIds({ ids, layers, experts, topK }: Pick<MoeTrace, "ids" | "layers" | "experts" | "topK">, where: string): void {
  // The row that named an expert last.
  const namedIn = new Float64Array(experts).fill(-1);
  for (let at = 0; at < ids.length; at++) {
    const id = ids[at] as number;
    const row = Math.floor(at / topK);
    const place = (): string => `${where}: token ${Math.floor(row / layers)}, layer ${row % layers}`;
    if (id >= experts) throw new FormatError({ where: place(), expected: `experts below ${experts}`, received: String(id) });
    if (namedIn[id] === row) throw new FormatError({ where: place(), expected: "distinct experts", received: `${id} twice` });
    namedIn[id] = row;
  }
}

/** Checks `{ start, len }` records: ascending, apart, within the tokens. Without any, all tokens are one sequence. */
export function checkSequences(value: unknown, tokens: number, where: string): Sequence[] {
  if (value === undefined) return tokens === 0 ? [] : [{ start: 0, length: tokens }];
  if (!Array.isArray(value)) throw new FormatError({ where, expected: "a list of { start, len }", received: shown(value) });
  let end = 0;
  return value.map((entry: unknown, i) => {
    const { start, len } = (typeof entry === "object" && entry !== null ? entry : {}) as Record<string, unknown>;
    const from = wholeNumber(start, end, tokens, `${where}[${i}].start`);
    const length = wholeNumber(len, 0, tokens - from, `${where}[${i}].len`);
    end = from + length;
    return { start: from, length };
  });
}

/** The narrowest array for expert numbers. */
export const idArray = (experts: number, length: number): Uint8Array | Uint16Array =>
  experts <= 256 ? new Uint8Array(length) : new Uint16Array(length);
