// attention/decode: out = softmax(softCap(scale q K^T) - slope distance + mask) V over a paged cache, one query per head.
//
// Online softmax (largest, sum, weighted values) in f32, over tiles of 256 tokens (decode_tile.h); the context of a
// sequence is cut into at most 64 chunks of at least 512 tokens, by its own length only, and their states are joined
// in order: the same bits alone or in a batch, in pages of any size, on any number of threads.
// The query heads of a KV head go together, so K and V are read once. A chunk of 512 x 128 f32 is 512 KiB: 30 us of
// one core's bandwidth, which bounds f32; f16 and i8 are bound by multiply-add (4 heads a group: 4 to 8 a byte).
// Page numbers and lengths are compared where they are loaded, and used as compared.
#include "decode_chunks.h"

namespace hotset {
namespace HOTSET_ISA {

void attention_decode_plan(const attention_decode_params& p, int slots, KernelPlan& plan) {
  const Shape shape = WholeContext(p, nullptr).shape(slots);
  plan.name = "chunks";
  plan.scratch_bytes = shape.bytes;
  if (p.batch == 0) return;
  plan.phases = 3;
  plan.tasks[0] = 1;
  plan.tasks[1] = p.batch * shape.units * shape.parts;
  plan.tasks[2] = p.batch * shape.units;
}

void attention_decode_task(const attention_decode_params& p, const Task& task) {
  const WholeContext context(p, task.scratch);
  if (task.phase == 0) return context.prepare(*task.status);
  const Decode<WholeContext> decode(context, task);
  if (task.phase == 1) decode.attend();
  else decode.join();
}

}  // namespace HOTSET_ISA
}  // namespace hotset
