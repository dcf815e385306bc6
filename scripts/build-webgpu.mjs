// Collects the .wgsl files of packages/kernels-webgpu into one JavaScript module, so that bundlers and browsers take the
// shaders along: text by path without the ending. Comments stay: they are what a reader of a compiler's message sees.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../packages/kernels-webgpu", import.meta.url));

export function buildWebgpu() {
  const paths = readdirSync(join(folder, "src"), { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".wgsl"))
    .sort();
  const entries = paths.map((path) => {
    const text = readFileSync(join(folder, "src", path), "utf8").replaceAll(/\n\s*\n/g, "\n");
    return `  ${JSON.stringify(path.slice(0, -".wgsl".length))}: ${JSON.stringify(text)},`;
  });
  mkdirSync(join(folder, "dist", "embedded"), { recursive: true });
  writeFileSync(join(folder, "dist", "embedded", "shaders.js"), `export const shaders = {\n${entries.join("\n")}\n};\n`);
  writeFileSync(join(folder, "dist", "embedded", "shaders.d.ts"), "export declare const shaders: Readonly<Record<string, string>>;\n");
  console.log(`webgpu: ${paths.length} WGSL files`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) buildWebgpu();
