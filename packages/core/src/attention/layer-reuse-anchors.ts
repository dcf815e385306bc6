/** The anchors of a policy: their plans, and their lists, on the host or on a device. */
import type { Hotset } from "../hotset.js";
import { embedding } from "../model/embedding/spec.js";
import type { VariantOf } from "../op/types.js";
import type { Plan } from "../plan.js";
import type { decode } from "./decode/spec.js";
import { decodeSparse } from "./decode-sparse/spec.js";
import type { LayerReuseSettings } from "./layer-reuse.js";
import { DeviceAnchor, DeviceLists, reorderAxes } from "./layer-reuse-device.js";
import { AnchorLists } from "./layer-reuse-lists.js";
import type { AnchorRule } from "./layer-reuse-policy.js";
import { entriesOf, granulesOf, hostArray } from "./layer-reuse-sizes.js";
import { select } from "./select/spec.js";

export interface Anchor {
  readonly rule: AnchorRule;
  /** On the host, or on a device. */
  readonly lists: AnchorLists | DeviceLists;
  readonly device: DeviceAnchor | undefined;
  readonly plan: Plan<typeof decodeSparse>;
  readonly select: Plan<typeof select>;
}

/** Of each layer its anchor, if it is one; and what reorders masses for head maps on a device. */
export async function planAnchors(
  hotset: Pick<Hotset, "plan">,
  { policy, axes, resident = false }: LayerReuseSettings,
  variant: VariantOf<typeof decode>,
  backend: string,
): Promise<{ anchors: (Anchor | undefined)[]; reorder: Plan<typeof embedding> | undefined }> {
  const { granularity } = policy;
  const lists = policy.perHead ? axes.kvHeads : 1;
  const granules = granulesOf(axes, granularity);
  const anchors: (Anchor | undefined)[] = [];
  const mapped = resident && policy.layers.some((rule) => rule.kind === "reuse" && rule.headMap);
  const reorder = mapped
    ? await hotset.plan(embedding, reorderAxes({ batch: axes.batch, heads: axes.kvHeads, granules }), { table: "f32" }, { backend })
    : undefined;
  try {
    for (const rule of policy.layers) {
      if (rule.kind !== "anchor") {
        anchors.push(undefined);
        continue;
      }
      const grown = rule.refreshEvery > 1 ? Math.ceil((rule.refreshEvery - 1) / granularity) + 1 : 0;
      const k = Math.min(granules, entriesOf(rule, granularity, axes.maxPages * axes.pageSize) + grown);
      const { batch, kvHeads: heads } = axes;
      const selectPlan = await hotset.plan(select, { batch, heads, granules, granularity, lists, k }, {}, { backend });
      const plan = await hotset.plan(decodeSparse, { ...axes, granularity, lists, k }, variant, { backend });
      const sizes = { batch, lists, kvHeads: heads, k, granularity };
      if (resident) {
        const made = new DeviceLists(sizes, granules);
        const device = new DeviceAnchor(selectPlan, made);
        anchors.push({ rule, lists: made, device, plan, select: selectPlan });
        continue;
      }
      const selected = hostArray(selectPlan, "selected", batch * lists * k, Int32Array);
      const counts = hostArray(selectPlan, "counts", batch * lists, Uint32Array);
      anchors.push({ rule, lists: new AnchorLists(sizes, selected, counts), device: undefined, plan, select: selectPlan });
    }
    return { anchors, reorder };
  } catch (error) {
    for (const anchor of anchors) anchor?.device?.dispose();
    throw error;
  }
}
