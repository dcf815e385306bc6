/** Tables, pictures and made-up vectors for the demo. */

export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows
    .map((row) =>
      row
        .map((text, column) => (right.includes(column) ? text.padStart(widths[column] ?? 0) : text.padEnd(widths[column] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Values that need no randomness: only their speed matters. */
export function rowsOf(count: number, dim: number, seed: number): Float32Array {
  const out = new Float32Array(count * dim);
  for (let i = 0; i < out.length; i++) out[i] = (((i + seed) * 2654435761) >>> 16) / 65536 - 0.5;
  return out;
}

/** Pictures of 28 x 28 bytes side by side, in Braille characters of 2 x 4 dots: 14 columns and 7 lines each. */
export function pictures(images: readonly Uint8Array[]): string[] {
  const dots = [
    [0x01, 0x08],
    [0x02, 0x10],
    [0x04, 0x20],
    [0x40, 0x80],
  ] as const;
  return Array.from({ length: 7 }, (_, line) =>
    images
      .map((image) =>
        Array.from({ length: 14 }, (_, column) => {
          let character = 0x2800;
          for (const [y, pair] of dots.entries())
            for (const [x, dot] of pair.entries()) if ((image[(4 * line + y) * 28 + 2 * column + x] ?? 0) > 100) character |= dot;
          return String.fromCodePoint(character);
        }).join(""),
      )
      .join("  "),
  );
}
