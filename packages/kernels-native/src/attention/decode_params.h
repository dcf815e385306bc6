// The parameters of attention/decode, as its siblings have them.
#pragma once
#include "../gen/params.h"

namespace hotset {
namespace HOTSET_ISA {
namespace {

// The parameters that a sibling shares with attention/decode, at the same places among its ports.
template <class P>
inline attention_decode_params dense_params(const P& p) {
  attention_decode_params out = {};
  out.batch = p.batch;
  out.query_heads = p.query_heads;
  out.kv_heads = p.kv_heads;
  out.head_dim = p.head_dim;
  out.value_dim = p.value_dim;
  out.pages = p.pages;
  out.page_size = p.page_size;
  out.max_pages = p.max_pages;
  out.mask_heads = p.mask_heads;
  out.queries = p.queries;
  out.key_pages = p.key_pages;
  out.key_scale = p.key_scale;
  out.value_pages = p.value_pages;
  out.value_scale = p.value_scale;
  out.page_table = p.page_table;
  out.lengths = p.lengths;
  out.sinks = p.sinks;
  out.slopes = p.slopes;
  out.mask = p.mask;
  out.mask_dtype = p.mask_dtype;
  out.out = p.out;
  out.lse = p.lse;
  out.key_pages_dtype = p.key_pages_dtype;
  out.scale = p.scale;
  out.soft_cap = p.soft_cap;
  out.window = p.window;
  return out;
}

}  // namespace
}  // namespace HOTSET_ISA
}  // namespace hotset
