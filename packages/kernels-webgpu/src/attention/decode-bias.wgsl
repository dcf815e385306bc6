// What logits are given by where their tokens stand: less for the distance from the query, and the mask. What is hidden has
// key 0, as a logit of -Inf has. Without slopes pass `gather` has left zeros; what a mask holds is asked at run time, so that
// variants share a shader.
// #if masked
const bits_code: u32 = 8u;
@group(0) @binding(6) var<storage, read> mask: array<u32>;
// #end

fn biased_keys(task: Task, logits: Lane, j: u32, position: u32) -> Bits {
  let params = uniforms.params;
  let local_sequence = task.sequence - uniforms.window.first_sequence;
  var token = position;
// #if listed
  let unit_head = task.row % params.query_heads;
  let unit_list = local_sequence * params.lists + unit_head * params.lists / params.query_heads;
  token = states.words[uniforms.window.tokens_start + unit_list * params.k * params.granularity + position];
// #end
  var all = all_of(logits);
  var hidden = vec4<bool>();
  for (var i = 0u; i < lane_width; i++) {
    if (j * lane_width + i < task.heads) {
      let head = task.first_head + j * lane_width + i;
      let slope = bitcast<f32>(states.words[uniforms.window.gathered_start + head]);
      all[i] = fma(-slope, f32(length_of(local_sequence) - 1u - token), all[i]);
// #if masked
      let row = select(task.sequence * params.mask_heads + head, task.sequence, params.mask_heads == 1u);
      let tokens = params.max_pages * params.page_size;
      if (params.mask_dtype == bits_code) {
        hidden[i] = ((mask[row * ((tokens + 31u) / 32u) + token / 32u] >> (token % 32u)) & 1u) == 0u;
      } else {
        let added = mask[row * tokens + token];
        hidden[i] = added == (infinity_bits | sign_bit);
        all[i] += select(bitcast<f32>(added), 0.0, hidden[i]);
      }
// #end
    }
  }
  return bits_of(select(all_bits_of(keys_of(lane_of(all))), vec4u(), hidden));
}

fn length_of(local_sequence: u32) -> u32 {
  return states.words[uniforms.window.gathered_start + uniforms.params.query_heads + local_sequence * (1u + uniforms.params.max_pages)];
}
