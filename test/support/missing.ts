/** Parts that a machine may lack. With HOTSET_FULL=1 they must be there: the test then runs, and fails by their absence. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const full = process.env.HOTSET_FULL === "1";

/** For `it.skipIf(...)`: skip where the part is missing, but never in a full run. */
export const without = (there: boolean): boolean => !there && !full;

export const chromium: string | undefined = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) =>
  existsSync(path),
);

/** The folder of the Vulkan driver that computes on the CPU, which comes with Chromium: for WebGPU without a GPU. */
export const swiftshader: string | undefined = [process.env.HOTSET_SWIFTSHADER ?? "/usr/lib/chromium"].find((folder) =>
  existsSync(`${folder}/vk_swiftshader_icd.json`),
);

/** What a process needs from its start to find that driver. */
export const swiftshaderEnvironment: Readonly<Record<string, string>> = swiftshader
  ? { LD_LIBRARY_PATH: swiftshader, VK_DRIVER_FILES: `${swiftshader}/vk_swiftshader_icd.json`, XDG_RUNTIME_DIR: "/tmp" }
  : {};

export const has = (command: string): boolean => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;
