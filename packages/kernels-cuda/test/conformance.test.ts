import { conformance } from "@hotset/core/testing";
import { it } from "vitest";
import { emulated, gpu, open } from "./devices.js";

for (const device of [emulated, gpu])
  if (device.missing) it.skip(`conformance of ${device.name} (${device.missing})`, () => {});
  else await conformance(await open(device));
