import { FormatError } from "../../errors.js";

/** Reads a file front to back; every length is checked against what is left before it is used. Little-endian. */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #where: string;
  #at = 0;

  constructor(bytes: Uint8Array, where: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
  }

  get at(): number {
    return this.#at;
  }
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** Moves on by so many bytes; returns where they begin. */
  skip(bytes: number, what: string): number {
    if (!(bytes >= 0 && bytes <= this.left))
      throw this.damaged(`${bytes} bytes of ${what} at byte ${this.#at}`, `${this.left} bytes up to the end of the file`);
    const at = this.#at;
    this.#at += bytes;
    return at;
  }

  u8(what: string): number {
    return this.#view.getUint8(this.skip(1, what));
  }
  i8(what: string): number {
    return this.#view.getInt8(this.skip(1, what));
  }
  u16(what: string): number {
    return this.#view.getUint16(this.skip(2, what), true);
  }
  i16(what: string): number {
    return this.#view.getInt16(this.skip(2, what), true);
  }
  u32(what: string): number {
    return this.#view.getUint32(this.skip(4, what), true);
  }
  i32(what: string): number {
    return this.#view.getInt32(this.skip(4, what), true);
  }
  f32(what: string): number {
    return this.#view.getFloat32(this.skip(4, what), true);
  }
  f64(what: string): number {
    return this.#view.getFloat64(this.skip(8, what), true);
  }
  /** A whole number that JavaScript can hold. */
  u64(what: string): number {
    const value = this.#view.getBigUint64(this.skip(8, what), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.damaged(`${what} below 2^53`, `${value}`);
    return Number(value);
  }
  i64(what: string): number {
    return Number(this.#view.getBigInt64(this.skip(8, what), true));
  }
  /** A view, not a copy. */
  bytes(length: number, what: string): Uint8Array {
    const at = this.skip(length, what);
    return this.#bytes.subarray(at, at + length);
  }
  text(length: number, what: string): string {
    return new TextDecoder().decode(this.bytes(length, what));
  }
  floats(count: number, what: string): Float32Array {
    return asFloats(this.bytes(count * 4, what));
  }

  damaged(expected: string, received: string): FormatError {
    return new FormatError({ where: this.#where, expected, received, hint: "The file is damaged, cut off, or of another format." });
  }
}

/** Bytes as f32: where they lie, or copied where they lie off alignment. */
export function asFloats(bytes: Uint8Array): Float32Array {
  const own = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Float32Array(own.buffer, own.byteOffset, own.byteLength / 4);
}
export function asWords(bytes: Uint8Array): Uint16Array {
  const own = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint16Array(own.buffer, own.byteOffset, own.byteLength / 2);
}
