/** Trying the addon in a process of its own: a broken driver may end or hold up the process that calls it. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { BackendLoadError } from "@hotset/core/backend";
import type { Description } from "./addon.js";

export interface ChildSettings {
  /** Milliseconds until a child that says nothing is given up. Default 10 000. */
  readonly timeout?: number;
  /** Another program than child.js, for tests. */
  readonly script?: string;
}

export interface Answer {
  readonly description: Description;
  /** What went wrong when a kernel was run; undefined where it gave what it should. */
  readonly problem?: string;
}

/** What the child's answer starts with: drivers may print lines of their own. */
export const marker = "hotset-cuda: ";

const answers = new Map<string, Promise<Answer>>();

/** One child for each addon and device; its answer holds for the process. */
export function askInChild(file: string, device: number, settings: ChildSettings): Promise<Answer> {
  const script = settings.script ?? fileURLToPath(new URL("./child.js", import.meta.url));
  const key = JSON.stringify([file, device, script]);
  const known = answers.get(key) ?? ask(script, file, device, settings.timeout ?? 10_000);
  answers.set(key, known);
  return known;
}

function ask(script: string, file: string, device: number, timeout: number): Promise<Answer> {
  const { NODE_OPTIONS: _, ...env } = process.env;
  // Where Electron is the program, this makes it Node.
  const child = spawn(process.execPath, [script, file, String(device)], {
    env: { ...env, ELECTRON_RUN_AS_NODE: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    windowsHide: true,
  });
  return new Promise((resolve, reject) => {
    let [output, errors] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      errors = (errors + text).slice(-2000);
    });
    const fail = (received: string, cause?: unknown) =>
      reject(
        new BackendLoadError({
          where: "cuda",
          expected: "the addon to load and run in a process of its own",
          received,
          hint: "The driver or its installation is broken: try nvidia-smi. Other backends run without it.",
          cause,
        }),
      );
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      // A process that hangs in the driver cannot even be killed: this one goes on without it.
      child.unref();
      child.stdout.destroy();
      child.stderr.destroy();
      fail(`no answer within ${timeout / 1e3} s`);
    }, timeout);
    child.on("error", (cause) => {
      clearTimeout(timer);
      fail(cause.message, cause);
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      const line = output.split("\n").find((text) => text.startsWith(marker));
      const answer = line && parsed(line.slice(marker.length));
      // A child that answered and then crashed shows that the driver cannot be left safely.
      if (signal !== null) fail(`a crash (${signal})${said(errors)}`);
      else if (code !== 0 || !answer) fail(`an end with status ${code}${said(errors)}`);
      else resolve(answer);
    });
  });
}

/** The line of an error output that says most: the last one that names an error, else the first. */
function said(errors: string): string {
  const lines = errors
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  const line = lines.findLast((text) => /error/i.test(text)) ?? lines[0];
  return line ? `: ${line}` : "";
}

function parsed(text: string): Answer | undefined {
  try {
    return JSON.parse(text) as Answer;
  } catch {
    return undefined;
  }
}
