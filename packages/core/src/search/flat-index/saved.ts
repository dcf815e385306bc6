/** A flat index as a file, and back. */
import { FormatError } from "../../errors.js";
import {
  checkSection,
  damaged,
  decodeHeader,
  encodeParts,
  type Header,
  readSection,
  type Section,
  type SectionKind,
  type Source,
} from "./container.js";
import type { Id, Ids } from "./ids.js";
import type { RowPart, Rows } from "./rows.js";

/** The file in pieces. The index has no dead rows. */
export function saveFlat(settings: Pick<Header, "dim" | "metric" | "dtype">, rows: Rows, ids: Ids): Generator<Uint8Array> {
  const header: Header = { ...settings, rows: rows.count, idKind: ids.kind, next: ids.next };
  const parts = Object.entries(rows.parts()).filter((entry): entry is [RowPart, Uint8Array] => entry[1] !== undefined);
  // An index that never had a row has no arrays yet.
  const empty = rows.coded ? { codes: none, codeScale: none, codeErrors: none } : { rowScale: none };
  return encodeParts(header, { ...empty, ...Object.fromEntries(parts), ...encodeIds(ids) });
}
const none = new Uint8Array(0);

/** Reads a file into an index that `make` returns for its header; disposes of that where the file is damaged. */
export function openFlat<I extends { dispose(): void }>(
  source: Source,
  make: (header: Header) => { index: I; rows: Rows; ids: Ids; inPlace: boolean },
): I {
  const { header, sections } = decodeHeader(source);
  const section = (kind: SectionKind): Section => sections[kind] as Section;
  const names = decodeIds(source, header, section);
  const { index, rows, ids, inPlace } = make(header);
  try {
    if (inPlace && source.view && header.rows > 0) {
      const views: Partial<Record<RowPart, Uint8Array>> = {};
      for (const part of ["rows", "rowScale", "codes", "codeScale", "codeErrors", "centre"] as const) {
        if (!sections[part]) continue;
        const view = source.view(section(part).offset, section(part).bytes);
        checkSection(source, part, section(part), view);
        views[part] = view;
      }
      rows.adopt(header.rows, views);
    } else {
      rows.load(header.rows, (part, target) => readSection(source, part, section(part), target));
    }
    ids.kind = header.idKind;
    ids.push(names);
    ids.next = Math.max(ids.next, header.next);
    return index;
  } catch (error) {
    index.dispose();
    if (error instanceof RangeError) throw damaged(source, "finite scales and errors of at least 0", error.message);
    throw error;
  }
}

function encodeIds(ids: Ids): Partial<Record<SectionKind, Uint8Array>> {
  const names = ids.names();
  if (ids.kind === undefined) return {};
  if (ids.kind === "number") return { idNumbers: new Uint8Array(Float64Array.from(names as number[]).buffer) };
  const encoder = new TextEncoder();
  const texts = names.map((name) => encoder.encode(name as string));
  const offsets = new Uint32Array(names.length + 1);
  let end = 0;
  for (const [i, { length }] of texts.entries()) {
    end += length;
    if (end >= 2 ** 32)
      throw new FormatError({ where: "FlatIndex", expected: "ids of less than 4 GiB together", received: `more, in row ${i}` });
    offsets[i + 1] = end;
  }
  const text = new Uint8Array(end);
  for (const [i, bytes] of texts.entries()) text.set(bytes, offsets[i]);
  return { idOffsets: new Uint8Array(offsets.buffer), idText: text };
}

function decodeIds(source: Source, header: Header, section: (kind: SectionKind) => Section): Id[] {
  const read = (kind: SectionKind): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(section(kind).bytes);
    readSection(source, kind, section(kind), bytes);
    return bytes;
  };
  if (header.idKind === undefined) return [];
  const ids: Id[] = header.idKind === "number" ? [...new Float64Array(read("idNumbers").buffer)] : texts(source, header, read);
  if (new Set(ids).size !== ids.length) throw damaged(source, "an id for each row, no two the same", "an id twice");
  if (header.idKind === "number" && !ids.every(Number.isSafeInteger)) throw damaged(source, "ids that are whole numbers", "others");
  return ids;
}

function texts(source: Source, { rows }: Header, read: (kind: SectionKind) => Uint8Array<ArrayBuffer>): string[] {
  const offsets = new Uint32Array(read("idOffsets").buffer);
  const bytes = read("idText");
  if (offsets[0] !== 0 || offsets[rows] !== bytes.length)
    throw damaged(source, `offsets of ids from 0 to ${bytes.length}`, `${offsets[0]} to ${offsets[rows]}`);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const ids: string[] = new Array(rows);
  for (let row = 0; row < rows; row++) {
    const [from, to] = [offsets[row] as number, offsets[row + 1] as number];
    if (to < from || to > bytes.length) throw damaged(source, "ascending offsets of ids", `${from}, ${to} in row ${row}`);
    try {
      ids[row] = decoder.decode(bytes.subarray(from, to));
    } catch {
      throw damaged(source, "ids in UTF-8", `other bytes in row ${row}`);
    }
  }
  return ids;
}
