import { describe, it } from "vitest";
import { expectSameAsJs } from "../../core/test/layer-reuse-loop.js";
import { wasm } from "../dist/node.js";

describe("LayerReuse on wasm", () => {
  for (const keyPages of ["f32", "i8"] as const)
    for (const threads of [1, 2])
      it(`attends to what js does, ${keyPages}, ${threads} threads`, async () =>
        expectSameAsJs(await wasm({ threads, shared: threads > 1 }), keyPages));
});
