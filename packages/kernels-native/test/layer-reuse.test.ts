import { describe, it } from "vitest";
import { expectSequencesAlone } from "../../core/test/layer-reuse-batch.js";
import { expectSameAsJs } from "../../core/test/layer-reuse-loop.js";
import { native } from "../dist/index.js";

describe("LayerReuse on native", () => {
  for (const keyPages of ["f32", "i8"] as const)
    it(`attends to what js does, ${keyPages}`, () => expectSameAsJs(native({ threads: 2 }), keyPages));

  it("gives each sequence of a batch the lists and bits that it has alone", () => expectSequencesAlone(native({ threads: 2 })));
});
