import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BackendLoadError } from "../errors.js";

/** Size and hash of each binary file in a folder, written when the package is built. */
export type Manifest = Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;

const damagedHint = "The package is damaged: install it again (npm ci).";

/**
 * The bytes of a file that `manifest.json` beside it lists, after checking their number and hash. Loading a
 * truncated addon kills the process, so this comes first. Throws BackendLoadError.
 */
export function readChecked(folder: string, name: string): Uint8Array<ArrayBuffer> {
  const path = join(folder, name);
  if (!existsSync(folder))
    throw new BackendLoadError({
      where: folder,
      expected: "what was built for this platform",
      received: "no such folder",
      hint: "The package has nothing for this platform; in a checkout, the build makes it.",
    });
  const manifest = parseManifest(join(folder, "manifest.json"));
  const entry = manifest[name];
  if (!entry) throw new BackendLoadError({ where: path, expected: "an entry in manifest.json", received: "none", hint: damagedHint });
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = readFileSync(path) as Uint8Array<ArrayBuffer>;
  } catch (cause) {
    throw new BackendLoadError({ where: path, expected: "a readable file", received: (cause as Error).message, hint: damagedHint, cause });
  }
  if (bytes.length !== entry.bytes)
    throw new BackendLoadError({ where: path, expected: `${entry.bytes} bytes`, received: `${bytes.length}`, hint: damagedHint });
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  if (sha256 !== entry.sha256)
    throw new BackendLoadError({ where: path, expected: `sha256 ${entry.sha256}`, received: sha256, hint: damagedHint });
  return bytes;
}

function parseManifest(path: string): Manifest {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Manifest;
  } catch (cause) {
    throw new BackendLoadError({
      where: path,
      expected: "the list of this package's files",
      received: (cause as Error).message,
      hint: damagedHint,
      cause,
    });
  }
}
