/**
 * An index of 60,000 made-up names, found again by how they are spelt: `node examples/dist/search.js`. A name's vector counts
 * its letter pairs and triples, hashed to 128 places.
 */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openIndex, saveIndex, search } from "hotset";

const dim = 128;
const syllables = "ka lo mi ren sha tor ve zan bel du fir gol hu jes nor pa quin ras te wyn yo mar el ix".split(" ");

/** The same names on every run. */
function names(count: number): string[] {
  const made = new Set<string>();
  for (let state = 7; made.size < count; ) {
    let name = "";
    for (let part = 0; part < 4; part++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      name += syllables[(state >>> 16) % syllables.length];
    }
    made.add(name);
  }
  return [...made];
}

function vectorOf(name: string): Float32Array {
  const vector = new Float32Array(dim);
  const padded = `^${name}$`;
  for (const length of [2, 3])
    for (let i = 0; i + length <= padded.length; i++) {
      let hash = length;
      for (const letter of padded.slice(i, i + length)) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193);
      const place = (hash >>> 8) % dim;
      vector[place] = (vector[place] as number) + (hash & 1 ? 1 : -1);
    }
  return vector;
}

const all = names(60_000);
const index = await search.FlatIndex.create({ dim, metric: "cos" });
const vectors = Float32Array.from(all.flatMap((name) => [...vectorOf(name)]));
index.add(vectors, all);

const path = join(tmpdir(), `names-${process.pid}.index`);
saveIndex(index, path); // checksummed, written whole or not at all
const opened = await openIndex(path); // mapped where the system can
for (const word of [`${all[1234]}x`, all[40_000]?.replace("a", "e") as string, "zanquinmar"]) {
  const [hit] = opened.search(vectorOf(word), { k: 4 });
  console.log(`${word}: ${hit?.ids.map((id, i) => `${id} ${hit.scores[i]?.toFixed(2)}`).join(", ")}`);
}
console.log(`${opened.size} names, ${(opened.bytes / 1e6).toFixed(0)} MB on ${opened.backend}`, opened.counters);
rmSync(path);
