import { conformance } from "@hotset/core/testing";
import { native, nativeIsas } from "../dist/index.js";

for (const isa of nativeIsas()) await conformance(native({ isa, threads: 2 }));
for (const threads of [1, 5]) await conformance(native({ threads }));
