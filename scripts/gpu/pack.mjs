// Writes a case pack (core/src/testing/pack.ts) for the runners: `node pack.mjs <file> [cases of each op's variant, at most]`.
import { closeSync, openSync, renameSync, writeSync } from "node:fs";
import { packCases } from "../../node_modules/@hotset/core/dist/testing/pack.js";

const [path, most] = process.argv.slice(2);
const file = openSync(`${path}.new`, "w");
// Many small chunks: not a call for each.
let chunks = [];
let bytes = 0;
const flush = () => {
  writeSync(file, Buffer.concat(chunks));
  chunks = [];
  bytes = 0;
};
for (const chunk of await packCases(most === undefined ? {} : { most: Number(most) })) {
  chunks.push(chunk);
  bytes += chunk.length;
  if (bytes > 8 << 20) flush();
}
flush();
closeSync(file);
renameSync(`${path}.new`, path);
