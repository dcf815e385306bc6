import { defineConfig } from "vitest/config";
import { swiftshaderEnvironment } from "./test/support/missing.js";

const shared = { environment: "node", testTimeout: 180_000 } as const;
const webgpu = ["packages/kernels-webgpu/test/**/*.test.ts", "packages/hotset/test/*.webgpu.test.ts"];
const conformance = ["packages/*/test/conformance.test.ts"];

export default defineConfig({
  test: {
    // Files in parallel would fight for the cores that the thread pools use.
    fileParallelism: false,
    reporters: ["default"],
    projects: [
      {
        test: {
          ...shared,
          name: "unit",
          include: ["packages/*/test/**/*.test.ts", "test/**/*.test.ts"],
          exclude: [...webgpu, ...conformance],
        },
      },
      { test: { ...shared, name: "conformance", include: conformance, exclude: webgpu } },
      // A Vulkan driver is found by the environment a process starts with; no other test should see this one.
      { test: { ...shared, name: "webgpu", include: webgpu, env: swiftshaderEnvironment } },
    ],
  },
});
