/** `hotset doctor`: what runs here, and why the rest does not. */
import { availableParallelism, cpus, totalmem } from "node:os";
import { cacheFolder, machineKey, readConstants } from "@hotset/core/node";
import { findHotset, version } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { print, table } from "./output.js";

export async function doctor({ json }: CommonOptions): Promise<void> {
  const hotset = await findHotset();
  const calibrated = readConstants(machineKey(hotset.backends, version)) !== undefined;
  const backends = [
    ...hotset.backends.map(({ id, target, name, features, threads }) => ({
      id,
      available: true,
      name,
      target,
      threads,
      features: [...features],
      reason: null,
    })),
    ...hotset.missing.map(({ id, reason }) => ({ id, available: false, name: null, target: null, threads: null, features: [], reason })),
  ];
  const machine = {
    processor: cpus()[0]?.model.trim() ?? "unknown",
    threads: availableParallelism(),
    memoryGiB: Number((totalmem() / 2 ** 30).toFixed(1)),
  };
  const document = {
    version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    machine,
    cacheFolder: cacheFolder(),
    calibrated,
    backends,
  };
  print(json, document, () =>
    [
      `hotset ${version}, Node ${process.version}, ${document.platform}`,
      `${machine.processor}, ${machine.threads} threads, ${machine.memoryGiB} GiB`,
      "",
      table([
        ["backend", "", ""],
        ...backends.map((backend) => [
          backend.id,
          backend.available ? "yes" : "no",
          backend.available ? described(backend) : (backend.reason ?? ""),
        ]),
      ]),
      "",
      calibrated
        ? `Speeds measured here are in ${document.cacheFolder}.`
        : "Choices are made by built-in figures; `hotset calibrate` measures this machine.",
    ].join("\n"),
  );
  hotset.dispose();
}

const described = ({ name, features }: { name: string | null; features: readonly string[] }): string =>
  `${name}${features.length ? ` (has ${features.join(", ")})` : ""}`;
