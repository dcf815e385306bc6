/** Pipelines of one device, each compiled once. */
import { HotsetError } from "@hotset/core/backend";
import { compose } from "./compose.js";
import type { WebgpuDevice } from "./device.js";
import type { Pass } from "./program.js";

export class Pipelines {
  readonly #owner: WebgpuDevice;
  readonly #modules = new Map<string, GPUShaderModule>();
  readonly #compiling = new Map<string, Promise<void>>();
  readonly #ready = new Map<string, GPUComputePipeline>();

  constructor(owner: WebgpuDevice) {
    this.#owner = owner;
  }

  /** Compiles a pass, once. Throws HotsetError with the compiler's words. */
  prepare(pass: Pass): Promise<void> {
    const key = keyOf(pass);
    let compiling = this.#compiling.get(key);
    if (!compiling) {
      compiling = this.#compile(pass, key);
      this.#compiling.set(key, compiling);
      // A failure may have been the device's; the next plan tries again.
      compiling.catch(() => this.#compiling.delete(key));
    }
    return compiling;
  }

  /** A pass that was prepared. */
  get(pass: Pass): GPUComputePipeline {
    const pipeline = this.#ready.get(keyOf(pass));
    if (!pipeline) throw new Error("webgpu: a pass is used before it was prepared");
    return pipeline;
  }

  async #compile(pass: Pass, key: string): Promise<void> {
    const owner = this.#owner;
    owner.live("webgpu: compile");
    const { device } = owner;
    const name = pass.pieces.at(-1) as string;
    const code = compose(pass.pieces, new Set(pass.flags), pass.constants);
    let module = this.#modules.get(code);
    if (!module) {
      module = device.createShaderModule({ code, label: `${name} ${pass.flags.join(" ")}` });
      this.#modules.set(code, module);
    }
    try {
      const pipeline = await device.createComputePipelineAsync({
        label: `${name} ${pass.entry}`,
        layout: "auto",
        compute: { module, entryPoint: pass.entry },
      });
      this.#ready.set(key, pipeline);
    } catch (cause) {
      owner.live("webgpu: compile");
      const { messages } = await module.getCompilationInfo();
      const words = messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`).join("; ");
      throw new HotsetError("internal", {
        where: `webgpu: ${name}.wgsl`,
        expected: `${pass.entry} to compile`,
        received: words || (cause as Error).message,
        hint: "Please report this, with the device's name from `hotset doctor`.",
        cause,
      });
    }
  }
}

const keyOf = ({ pieces, flags, entry, constants }: Pass): string => JSON.stringify([pieces, flags, entry, constants]);
