// attention/decode: out = softmax(softCap(scale q K^T)) V over a paged cache, one query per head.
//
// A context is cut into chunks by its own length, a block of 128 threads each; tiles of up to 128 tokens (16 KiB of keys)
// come by cp.async while the last is worked on; online softmax in f32; a second launch joins the chunks in order, so a
// sequence has the same bits alone or in a batch, in pages of any size. The query heads of a KV head go together, up to
// 16 a block, four to a warp with the queries in registers: K and V are read, and widened, once.
// Bound by memory: 32/8 heads x 128 are 1024 multiply-adds for 512 bytes of f16; an H200's 4.8 TB/s ask for 19 of its
// 67 TFLOP/s, and with widening, shuffles and shared memory about half of its issue slots (i8: nearly all). So no
// tensor cores, which would need the f32 queries split; groups above 8 would gain from them.
#include "decode_chunks.h"

namespace hotset {

void attention_decode_plan(const attention_decode_params& p, const Device& device, KernelPlan& plan) { plan_decode(WholeContext{p}, device, plan); }

cudaError_t attention_decode_run(const attention_decode_params& p, const Run& run) { return run_decode(WholeContext{p}, run); }

}  // namespace hotset
