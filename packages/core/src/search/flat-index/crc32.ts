/** CRC-32 (IEEE 802.3, as in zip and zlib), eight bytes a step. */

const tables = Array.from({ length: 8 }, () => new Uint32Array(256)) as [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  ...Uint32Array[],
];
for (let i = 0; i < 256; i++) {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  tables[0][i] = value;
}
for (let t = 1; t < 8; t++)
  for (let i = 0; i < 256; i++) {
    const before = (tables[t - 1] as Uint32Array)[i] as number;
    (tables[t] as Uint32Array)[i] = (before >>> 8) ^ (tables[0][before & 255] as number);
  }

/** The checksum of `bytes` behind those that gave `start`. */
export function crc32(bytes: Uint8Array, start = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as unknown as Record<number, Uint32Array> & Uint32Array[];
  const at = (table: Uint32Array | undefined, i: number): number => (table as Uint32Array)[i & 255] as number;
  let crc = ~start;
  let i = 0;
  for (; i + 8 <= bytes.length; i += 8) {
    crc ^= (bytes[i] as number) | ((bytes[i + 1] as number) << 8) | ((bytes[i + 2] as number) << 16) | ((bytes[i + 3] as number) << 24);
    crc =
      at(t7, crc) ^
      at(t6, crc >>> 8) ^
      at(t5, crc >>> 16) ^
      at(t4, crc >>> 24) ^
      at(t3, bytes[i + 4] as number) ^
      at(t2, bytes[i + 5] as number) ^
      at(t1, bytes[i + 6] as number) ^
      at(t0, bytes[i + 7] as number);
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ at(t0, crc ^ (bytes[i] as number));
  return ~crc >>> 0;
}
