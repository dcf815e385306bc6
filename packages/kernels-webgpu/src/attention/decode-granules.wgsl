// The sums of weights of each granule of a tile, with the key of the logit they are relative to: a thread a granule. Those of
// a granule that began in an earlier tile are taken along.
fn add_masses(task: Task, begin: u32, base: u32, count: u32, thread: u32) {
  let granularity = uniforms.params.granularity;
  let first = base / granularity;
  let last = (base + count - 1u) / granularity;
  for (var g = first + thread; g <= last; g += workgroup_threads) {
    let begun = max(g * granularity, base) - base;
    let to = min((g + 1u) * granularity, base + count) - base;
    for (var h = 0u; h < task.heads; h++) {
      var sum = 0.0;
      for (var t = begun; t < to; t++) {
        sum += all_of(weights[t * head_blocks + h / lane_width])[h % lane_width];
      }
      let place = (task.row + h) * uniforms.window.row_places + task.state * uniforms.window.state_places + g - begin / granularity;
      let at = uniforms.window.masses_start + 2u * place;
      let top = atomicLoad(&tops[h]);
      if (base > begin && g * granularity < base) {
        let before = states.words[at];
        if (before != 0u) {
          sum = fma(bitcast<f32>(states.words[at + 1u]), weight_of(before, top), sum);
        }
      }
      states.words[at] = top;
      states.words[at + 1u] = bitcast<u32>(sum);
    }
  }
}

fn weight_of(key: u32, top: u32) -> f32 {
  return all_of(weights_of(bits_of(vec4u(key)), bits_of(vec4u(top)))).x;
}
