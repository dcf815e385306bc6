import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { root } from "./support/installed.js";

const readme = readFileSync(join(root, "README.md"), "utf8");
const blocks = [...readme.matchAll(/```(\w*)\n([\s\S]*?)```/g)].map(([, language, text]) => ({ language, text: text as string }));

describe("the README", () => {
  it("shows six lines of code, and what they really print", () => {
    const code = blocks.find(({ language }) => language === "js")?.text as string;
    const output = blocks[blocks.findIndex(({ language }) => language === "js") + 1]?.text as string;
    expect(code.trim().split("\n").length).toBe(6);
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
      cwd: join(root, "examples"),
      encoding: "utf8",
    });
    expect(stderr).toBe("");
    // The backend is this machine's own choice; the rest is the same everywhere.
    const neutral = (text: string): string =>
      text
        .trim()
        .replace(/backend: '\w+'/, "backend: '...'")
        .replace(/kernel: '[\w-]+'/, "kernel: '...'");
    expect(neutral(stdout)).toBe(neutral(output));
  });

  it("names only scripts that exist", () => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };
    for (const [, name] of readme.matchAll(/npm run ([\w:-]+)/g)) expect(scripts).toHaveProperty(name as string);
  });
});
