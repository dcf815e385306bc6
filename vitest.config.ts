import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["packages/*/test/**/*.test.ts", "test/**/*.test.ts"],
    environment: "node",
    // Files in parallel would fight for the cores that the thread pools use.
    fileParallelism: false,
    testTimeout: 60_000,
    reporters: ["default"],
  },
});
