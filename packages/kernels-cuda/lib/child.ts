/** The program of the child process: loads the addon, runs a small kernel, and prints what it found. See ask.ts. */
import { createRequire } from "node:module";
import type { Addon } from "./addon.js";
import { type Answer, marker } from "./ask.js";

function answer(file: string, device: number): Answer {
  const addon = createRequire(import.meta.url)(file) as Addon;
  const description = addon.describe();
  if (device >= description.devices.length) return { description };
  try {
    const queue = addon.open(device);
    if (!addon.check(queue)) return { description, problem: "wrong results of a small kernel" };
    addon.close(queue);
    return { description };
  } catch (error) {
    return { description, problem: (error as Error).message };
  }
}

const [, , file = "", device] = process.argv;
process.stdout.write(`${marker}${JSON.stringify(answer(file, Number(device)))}\n`);
