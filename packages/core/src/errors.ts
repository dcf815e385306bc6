/** What went wrong, for programs: `error.code`. */
export type ErrorCode =
  | "argument"
  | "shape"
  | "dtype"
  | "index"
  | "unsupported"
  | "load"
  | "format"
  | "memory"
  | "detached"
  | "disposed"
  | "busy"
  | "device"
  | "internal";

export interface ErrorParts {
  /** Where it happened: an op, a method or a file, such as `search/scan`. */
  where: string;
  /** What would have been right. */
  expected: string;
  /** What was given instead. */
  received: string;
  /** What to do about it, as a sentence. */
  hint?: string;
  cause?: unknown;
}

/** Every error Hotset throws on purpose: where, what was expected, what was received, what to do. */
export class HotsetError extends Error {
  override readonly name: string = "HotsetError";
  readonly code: ErrorCode;
  readonly where: string;
  readonly expected: string;
  readonly received: string;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, parts: ErrorParts) {
    const { where, expected, received, hint, cause } = parts;
    const sentence = `${where}: expected ${expected} but received ${received}`;
    super(hint ? `${sentence}. ${hint}` : sentence, cause === undefined ? undefined : { cause });
    this.code = code;
    this.where = where;
    this.expected = expected;
    this.received = received;
    this.hint = hint;
  }
}

/** Sizes that disagree with the op's declared shape, or break one of its constraints. */
export class ShapeError extends HotsetError {
  override readonly name = "ShapeError";
  constructor(parts: ErrorParts) {
    super("shape", parts);
  }
}

/** An element type the port does not take, or one that cannot be told from the array given. */
export class DTypeError extends HotsetError {
  override readonly name = "DTypeError";
  constructor(parts: ErrorParts) {
    super("dtype", parts);
  }
}

/** No backend that was asked can run this: the message holds the reason of each one. */
export class UnsupportedError extends HotsetError {
  override readonly name = "UnsupportedError";
  constructor(parts: ErrorParts) {
    super("unsupported", parts);
  }
}

/** A backend or one of its files could not be loaded. */
export class BackendLoadError extends HotsetError {
  override readonly name = "BackendLoadError";
  constructor(parts: ErrorParts) {
    super("load", parts);
  }
}

/** A file that is damaged, truncated or of another format. */
export class FormatError extends HotsetError {
  override readonly name = "FormatError";
  constructor(parts: ErrorParts) {
    super("format", parts);
  }
}

/** Words for a value in a message: `7`, `"ten"`, `Float32Array(12)`, `undefined`. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${(value as { length?: number }).length ?? value.byteLength})`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null)
    return value.constructor?.name === "Object"
      ? `{ ${Object.keys(value).join(", ")} }`
      : `a ${value.constructor?.name ?? "null-prototype object"}`;
  return String(value);
}
