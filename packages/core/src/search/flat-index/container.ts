/**
 * The file of an index: a header with every length, and sections behind it. Little-endian.
 *
 *   0  magic "HOTSETIX"      32  dtype (dtype.ts's code)    48  f64 next number for an id
 *   8  u32 version 1         36  u32 dim                    56  u32 byte order mark 0x01020304
 *  12  u32 header bytes      40  u32 rows                   60  u32 sections
 *  16  f64 file bytes        44  u32 ids: none, numbers,    64  sections of 24 bytes: u32 kind, u32 CRC-32,
 *  24  u32 kind: flat               strings                     f64 offset, f64 bytes
 *  28  u32 metric                                           last 4 bytes of the header: its own CRC-32
 *
 * The header and every section start at a multiple of 64 and are padded with zeros to the next; checksums cover the
 * padding, so that no byte of the file is outside of one.
 */
import { FormatError } from "../../errors.js";
import { crc32 } from "./crc32.js";

export const sectionKinds = ["rows", "rowScale", "codes", "codeScale", "codeErrors", "centre", "idNumbers", "idOffsets", "idText"] as const;
export type SectionKind = (typeof sectionKinds)[number];
const metrics = ["cos", "ip", "l2"] as const;
const rowDTypes = ["f32", "f16", undefined, "i8"] as const;
const idKinds = [undefined, "number", "string"] as const;

export interface Header {
  readonly metric: (typeof metrics)[number];
  readonly dtype: "f32" | "f16" | "i8";
  readonly dim: number;
  readonly rows: number;
  readonly idKind: "number" | "string" | undefined;
  readonly next: number;
}

export interface Section {
  readonly offset: number;
  readonly bytes: number;
  readonly crc: number;
}

/** Where a file's bytes come from. */
export interface Source {
  /** For messages: a path. */
  readonly name: string;
  readonly bytes: number;
  /** Fills `target` from `offset` on; both lie inside. Throws FormatError where the file became shorter. */
  read(offset: number, target: Uint8Array): void;
  /** The bytes themselves, where they lie in memory already and may be kept. */
  view?(offset: number, bytes: number): Uint8Array;
}

const align = 64;
const padded = (bytes: number): number => Math.ceil(bytes / align) * align;
const magic = "HOTSETIX";
const version = 1;
const zeros = new Uint8Array(align);

/** The sections that a header calls for, and how long each must be; idText has the length that the file says. */
export function sectionsOf({ dtype, dim, rows, idKind }: Header): Partial<Record<SectionKind, number>> {
  const width = dtype === "f32" ? 4 : dtype === "f16" ? 2 : 1;
  return {
    rows: width * dim * rows,
    ...(dtype === "i8" ? { rowScale: 4 * rows } : { codes: dim * rows, codeScale: 4 * rows, codeErrors: 4 * rows, centre: 4 * dim }),
    ...(idKind === "number" ? { idNumbers: 8 * rows } : idKind === "string" ? { idOffsets: 4 * (rows + 1), idText: -1 } : {}),
  };
}

/** The file in pieces, in order. */
export function* encodeParts(header: Header, sections: Partial<Record<SectionKind, Uint8Array>>): Generator<Uint8Array> {
  const present = sectionKinds.filter((kind) => sections[kind]);
  const headerBytes = padded(64 + 24 * present.length + 4);
  const bytes = new Uint8Array(headerBytes);
  const view = new DataView(bytes.buffer);
  let offset = headerBytes;
  for (const [i, kind] of present.entries()) {
    const part = sections[kind] as Uint8Array;
    const padding = zeros.subarray(0, padded(part.length) - part.length);
    view.setUint32(64 + 24 * i, sectionKinds.indexOf(kind), true);
    view.setUint32(68 + 24 * i, crc32(padding, crc32(part)), true);
    view.setFloat64(72 + 24 * i, offset, true);
    view.setFloat64(80 + 24 * i, part.length, true);
    offset += padded(part.length);
  }
  for (let i = 0; i < 8; i++) bytes[i] = magic.charCodeAt(i);
  const words = [metrics.indexOf(header.metric), rowDTypes.indexOf(header.dtype), header.dim, header.rows, idKinds.indexOf(header.idKind)];
  view.setUint32(8, version, true);
  view.setUint32(12, headerBytes, true);
  view.setFloat64(16, offset, true);
  view.setUint32(24, 1, true);
  for (const [i, word] of words.entries()) view.setUint32(28 + 4 * i, word, true);
  view.setFloat64(48, header.next, true);
  view.setUint32(56, 0x01020304, true);
  view.setUint32(60, present.length, true);
  view.setUint32(headerBytes - 4, crc32(bytes.subarray(0, headerBytes - 4)), true);
  yield bytes;
  for (const kind of present) {
    const part = sections[kind] as Uint8Array;
    yield part;
    yield zeros.subarray(0, padded(part.length) - part.length);
  }
}

export const damaged = (source: Source, expected: string, received: string): FormatError =>
  new FormatError({ where: source.name, expected, received, hint: "The file is damaged or no index of Hotset's: build it again." });

/** Reads and checks the header: every length against the file's size, nothing else read. Throws FormatError. */
export function decodeHeader(source: Source): { header: Header; sections: Partial<Record<SectionKind, Section>> } {
  const wrong = (expected: string, received: string | number): FormatError => damaged(source, expected, String(received));
  if (source.bytes < 128) throw wrong("a header of at least 128 bytes", `${source.bytes} bytes`);
  const start = new Uint8Array(64);
  source.read(0, start);
  const word = (view: DataView, at: number): number => view.getUint32(at, true);
  const fixed = new DataView(start.buffer);
  const name = String.fromCharCode(...start.subarray(0, 8));
  if (name !== magic) throw wrong(`a file that starts with ${magic}`, JSON.stringify(name));
  if (word(fixed, 8) !== version) throw wrong(`version ${version}`, word(fixed, 8));
  const [headerBytes, fileBytes, count] = [word(fixed, 12), fixed.getFloat64(16, true), word(fixed, 60)];
  if (fileBytes !== source.bytes) throw wrong(`${fileBytes} bytes, as the header says`, `${source.bytes}`);
  if (count > sectionKinds.length) throw wrong(`at most ${sectionKinds.length} sections`, count);
  if (headerBytes !== padded(64 + 24 * count + 4) || headerBytes > source.bytes)
    throw wrong(`a header of ${padded(64 + 24 * count + 4)} bytes for ${count} sections`, headerBytes);
  const bytes = new Uint8Array(headerBytes);
  source.read(0, bytes);
  const view = new DataView(bytes.buffer);
  const crc = crc32(bytes.subarray(0, headerBytes - 4));
  if (word(view, headerBytes - 4) !== crc) throw wrong(`a header with checksum ${word(view, headerBytes - 4)}`, crc);
  if (word(view, 56) !== 0x01020304) throw wrong("the byte order mark", word(view, 56));
  if (word(view, 24) !== 1) throw wrong("kind 1, a flat index", word(view, 24));
  const [metric, dtype, idKind] = [metrics[word(view, 28)], rowDTypes[word(view, 32)], idKinds[word(view, 44)]];
  const [dim, rows, next] = [word(view, 36), word(view, 40), view.getFloat64(48, true)];
  if (!metric || !dtype || word(view, 44) > 2)
    throw wrong("a known metric, dtype and kind of ids", [28, 32, 44].map((at) => word(view, at)).join(", "));
  if (dim < 1 || dim > 65536 || rows > 2 ** 31 - 1) throw wrong("1 to 65536 components and at most 2^31 - 1 rows", `${dim}, ${rows}`);
  if ((idKind === undefined && rows > 0) || !Number.isSafeInteger(next) || next < 0)
    throw wrong("ids for the rows", `kind ${word(view, 44)}, next ${next}`);
  const header: Header = { metric, dtype, dim, rows, idKind, next };
  const wanted = sectionsOf(header);
  const sections: Partial<Record<SectionKind, Section>> = {};
  let end = headerBytes;
  for (let i = 0; i < count; i++) {
    const kind = sectionKinds[word(view, 64 + 24 * i)];
    const [offset, length] = [view.getFloat64(72 + 24 * i, true), view.getFloat64(80 + 24 * i, true)];
    const expected = kind && wanted[kind];
    if (kind === undefined || expected === undefined || sections[kind])
      throw wrong("each section that the header calls for, once", `section ${kind ?? word(view, 64 + 24 * i)}`);
    if (!Number.isSafeInteger(length) || length < 0 || (expected >= 0 && length !== expected))
      throw wrong(`${kind} of ${expected} bytes`, length);
    if (offset !== end || end + padded(length) > source.bytes)
      throw wrong(`${kind} inside the file, at ${end}`, `${length} bytes at ${offset}`);
    end += padded(length);
    sections[kind] = { offset, bytes: length, crc: word(view, 68 + 24 * i) };
  }
  const lacking = (Object.keys(wanted) as SectionKind[]).filter((kind) => !sections[kind]);
  if (lacking.length > 0) throw wrong("every section that the header calls for", `no ${lacking.join(", no ")}`);
  if (end !== source.bytes) throw wrong(`a file that ends at ${end}`, `${source.bytes} bytes`);
  return { header, sections };
}

/** Fills `target`, of the section's length, and compares the checksum. Throws FormatError. */
export function readSection(source: Source, kind: SectionKind, section: Section, target: Uint8Array): void {
  source.read(section.offset, target);
  checkSection(source, kind, section, target);
}

/** Compares the checksum of a section whose bytes are in memory. */
export function checkSection(source: Source, kind: SectionKind, section: Section, bytes: Uint8Array): void {
  const padding = new Uint8Array(padded(section.bytes) - section.bytes);
  source.read(section.offset + section.bytes, padding);
  const crc = crc32(padding, crc32(bytes));
  if (crc !== section.crc) throw damaged(source, `${kind} with checksum ${section.crc}`, `${crc}`);
}

/** Bytes in memory as a source. They are copied out: the index does not depend on them. */
export const sourceOf = (bytes: Uint8Array, name: string): Source => ({
  name,
  bytes: bytes.length,
  read: (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
});
