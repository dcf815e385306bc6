/** The Hotset behind `await op({ ... })` and the top-level `plan`: made at first use. */
import { createHotset, type Hotset } from "./hotset.js";
import type { Op } from "./op/define.js";
import type { AxesOf, VariantOf } from "./op/types.js";
import type { Plan, PlanSettings } from "./plan.js";

let make: () => Promise<Hotset> = () => createHotset();
let current: Promise<Hotset> | undefined;
let ready: Hotset | undefined;

/** The process-wide Hotset: every backend that was found. */
export function defaultHotset(): Promise<Hotset> {
  if (!current) {
    current = make();
    current.then(
      (hotset) => {
        ready = hotset;
      },
      () => {
        current = undefined;
      },
    );
  }
  return current;
}

/** Replaces how the default Hotset is made; `hotset` does so to find the installed backends. */
export function setDefaultHotset(next: () => Promise<Hotset>): void {
  make = next;
  current = undefined;
  ready = undefined;
}

/** Plans on the default Hotset: validates, chooses a backend and prepares its kernel. */
export async function plan<O extends Op>(op: O, axes: AxesOf<O>, variant: VariantOf<O>, settings: PlanSettings = {}): Promise<Plan<O>> {
  return (await defaultHotset()).plan(op, axes, variant, settings);
}

/** What `await op({ ... })` does. */
export async function invoke(op: Op, args: Record<string, unknown>): Promise<unknown> {
  return (ready ?? (await defaultHotset())).call(op, args as never);
}
