/**
 * Protocol buffers' wire format, as far as ONNX files need it: fields of varints, 4 or 8 bytes, and lengths with bytes.
 * (https://protobuf.dev/programming-guides/encoding). Every length is compared with what is left before it is used, nothing is
 * allocated by a size that a file states, and messages are read one level at a time, so that none nests without bounds.
 */
import { FormatError } from "@hotset/core";

export interface Field {
  readonly number: number;
  readonly value: bigint | Uint8Array;
  /** How its value was stored: 0 a varint, 1 and 5 eight and four bytes, 2 bytes with their length. */
  readonly wire: number;
}

/** The fields of one message, in the order of the file. */
export function* fieldsOf(bytes: Uint8Array, where: string): Generator<Field> {
  const cursor = { at: 0 };
  while (cursor.at < bytes.length) {
    const start = cursor.at;
    const tag = varint(bytes, cursor, where);
    const [number, wire] = [Number(tag >> 3n), Number(tag & 7n)];
    if (number < 1 || number >= 2 ** 29) throw damaged(where, `a field's number at byte ${start}`, `${number}`);
    if (wire === 0) yield { number, wire, value: varint(bytes, cursor, where) };
    else if (wire === 1) yield { number, wire, value: take(bytes, cursor, 8n, where) };
    else if (wire === 5) yield { number, wire, value: take(bytes, cursor, 4n, where) };
    else if (wire === 2) yield { number, wire, value: take(bytes, cursor, varint(bytes, cursor, where), where) };
    else throw damaged(where, `a field that is a number or bytes at byte ${start}`, `wire type ${wire}`);
  }
}

/** The whole numbers of a repeated field: one, or many that are packed. Signed, of 64 bits. */
export function integers({ value }: Field, where: string): bigint[] {
  if (typeof value === "bigint") return [BigInt.asIntN(64, value)];
  const cursor = { at: 0 };
  const list: bigint[] = [];
  while (cursor.at < value.length) list.push(BigInt.asIntN(64, varint(value, cursor, where)));
  return list;
}

/** Its bytes; their meaning is another's. */
export function bytesOf({ number, wire, value }: Field, where: string): Uint8Array {
  if (wire !== 2 || typeof value === "bigint") throw damaged(where, `bytes in field ${number}`, `wire type ${wire}`);
  return value;
}

export function textOf(field: Field, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytesOf(field, where));
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw damaged(where, `text in field ${field.number}`, "bytes that are no UTF-8");
  }
}

/** One whole number that JavaScript can hold. */
export function integer({ number, wire, value }: Field, where: string): number {
  if (typeof value !== "bigint") throw damaged(where, `a whole number in field ${number}`, `wire type ${wire}`);
  const signed = BigInt.asIntN(64, value);
  if (signed > BigInt(Number.MAX_SAFE_INTEGER) || signed < BigInt(Number.MIN_SAFE_INTEGER))
    throw damaged(where, `a whole number within 2^53 in field ${number}`, `${signed}`);
  return Number(signed);
}

/** Numbers of four bytes: one, or many that are packed. */
export function floats({ number, value }: Field, where: string): Float32Array {
  if (typeof value === "bigint" || value.length % 4 !== 0)
    throw damaged(where, `numbers of four bytes in field ${number}`, typeof value === "bigint" ? "a varint" : `${value.length} bytes`);
  return new Float32Array(new Uint8Array(value).buffer);
}

export const damaged = (where: string, expected: string, received: string): FormatError => new FormatError({ where, expected, received });

function varint(bytes: Uint8Array, cursor: { at: number }, where: string): bigint {
  const start = cursor.at;
  let value = 0n;
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = bytes[cursor.at++];
    if (byte === undefined) throw damaged(where, `the rest of a number at byte ${start}`, `the end at byte ${bytes.length}`);
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) return BigInt.asUintN(64, value);
  }
  throw damaged(where, `a number of at most ten bytes at byte ${start}`, "a longer one");
}

function take(bytes: Uint8Array, cursor: { at: number }, length: bigint, where: string): Uint8Array {
  const left = bytes.length - cursor.at;
  if (length > BigInt(left)) throw damaged(where, `${length} bytes at byte ${cursor.at}`, `${left} up to the end`);
  cursor.at += Number(length);
  return bytes.subarray(cursor.at - Number(length), cursor.at);
}
