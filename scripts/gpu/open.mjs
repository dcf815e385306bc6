// Opening one backend for the check. A backend that this machine has nothing for ends the process with status 4, after a
// line that says why.
import { writeSync } from "node:fs";

/** One line of JSON, written at once. */
export function say(value) {
  writeSync(1, `${JSON.stringify(value)}\n`);
}

/** `native-avx512` is one instruction set of a backend. */
export async function open(target, emulated) {
  const [id, isa] = target.split("-");
  try {
    if (id === "cuda") return await (await import("@hotset/kernels-cuda")).cuda({ emulated });
    if (id === "native") return (await import("@hotset/kernels-native")).native(isa ? { isa } : {});
    if (id === "webgpu") {
      const { webgpu } = await import("@hotset/kernels-webgpu");
      return await webgpu({ gpu: await dawn() });
    }
    throw new Error(`no backend ${id}`);
  } catch (error) {
    const why = error.received ?? error.message;
    say({ missing: why.startsWith("no device") ? why : `no device: ${why}`, message: error.message });
    process.exit(4);
  }
}

/** Dawn with clocks as fine as the device's: it rounds them to 0.1 ms otherwise. */
async function dawn() {
  try {
    process.dlopen({ exports: {} }, "libvulkan.so.1");
  } catch (error) {
    // It is no addon: only a loader that is not there counts.
    if (/cannot open shared object/.test(error.message)) throw new Error("no Vulkan loader (libvulkan.so.1)");
  }
  const { create } = await import("webgpu");
  return create(["disable-dawn-features=timestamp_quantization"]);
}
