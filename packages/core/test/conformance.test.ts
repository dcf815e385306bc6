import { js } from "@hotset/core";
import { conformance } from "@hotset/core/testing";

await conformance(js());
