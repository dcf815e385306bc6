// The values of attention/prefill: a tile's are added to the sums of its rows, four columns and out_rows rows a thread.
// From one window of pages to the next go the key of a row's largest logit and the sum of its weights in scratch, and its weighted
// values in `out`. Workgroups that share the columns of values all need the states of before, so the first of them writes
// its own elsewhere.

// Of a thread, in flight.
const value_loads: u32 = 4u;

fn add_values(task: Task, attended: ptr<function, array<vec4f, out_rows>>, count: u32, thread: u32) {
  let block = thread / out_fours * out_blocks;
  let column = task.first_column + 4u * (thread % out_fours);
  for (var j = 0u; j < out_blocks; j++) {
    let fade = fades[block + j];
    for (var i = 0u; i < 4u; i++) {
      (*attended)[4u * j + i] *= fade[i];
    }
  }
  if (column >= task.columns_end) {
    return;
  }
  if (atomicLoad(&tile_excludes) != 0u) {
    for (var t = 0u; t < count; t++) {
      if (slots[t] != nowhere) {
        let value = four_values(slots[t], column);
        for (var j = 0u; j < out_blocks; j++) {
          let weight = weights[turned(t, block + j)];
          for (var i = 0u; i < 4u; i++) {
            let sum = (*attended)[4u * j + i];
            (*attended)[4u * j + i] = select(fma(vec4f(weight[i]), value, sum), sum, weight[i] == 0.0);
          }
        }
      }
    }
    return;
  }
  var t = 0u;
// #if unrolled
  // Several loads under way at once.
  for (; t + value_loads <= count; t += value_loads) {
    var vectors: array<ValueVector, value_loads>;
    for (var u = 0u; u < value_loads; u++) {
      vectors[u] = value_pages[slots[t + u] * (uniforms.params.value_dim / 4u) + column / 4u];
    }
    for (var u = 0u; u < value_loads; u++) {
      weigh(attended, widened(vectors[u]), t + u, block);
    }
  }
// #end
  for (; t < count; t++) {
    weigh(attended, four_values(slots[t], column), t, block);
  }
}

fn weigh(attended: ptr<function, array<vec4f, out_rows>>, value: vec4f, t: u32, block: u32) {
  for (var j = 0u; j < out_blocks; j++) {
    let weight = weights[turned(t, block + j)];
    for (var i = 0u; i < 4u; i++) {
      (*attended)[4u * j + i] = fma(vec4f(weight[i]), value, (*attended)[4u * j + i]);
    }
  }
}

// What the windows before have made of these rows. Returns the keys of this thread's four.
fn resume(task: Task, sizes: ptr<function, Lane>, attended: ptr<function, array<vec4f, out_rows>>, thread: u32) -> Bits {
  workgroupBarrier();
  if (thread < task.rows) {
    atomicStore(&tops[thread], work.words[uniforms.window.states_in + 2u * bound_row(task, thread)]);
  }
  workgroupBarrier();
  let block = thread / token_threads;
  for (var i = 0u; i < 4u; i++) {
    let row = 4u * block + i;
    if (thread % token_threads == 0u && row < task.rows) {
      (*sizes)[i] = bitcast<f32>(work.words[uniforms.window.states_in + 2u * bound_row(task, row) + 1u]);
    }
  }
  let column = task.first_column + 4u * (thread % out_fours);
  for (var i = 0u; i < out_rows; i++) {
    let row = thread / out_fours * out_rows + i;
    for (var c = column; row < task.rows && c < min(column + 4u, task.columns_end); c++) {
      (*attended)[i][c - column] = bitcast<f32>(out[bound_row(task, row) * uniforms.params.value_dim + c]);
    }
  }
  return tops_of(block);
}

// The sums of weights are in `fades`.
fn store(task: Task, attended: ptr<function, array<vec4f, out_rows>>, thread: u32) {
  if (thread < task.rows && task.first_column == 0u && owned(task, thread)) {
    let at = uniforms.window.states_out + 2u * bound_row(task, thread);
    work.words[at] = atomicLoad(&tops[thread]);
    work.words[at + 1u] = bitcast<u32>(fades[thread / 4u][thread % 4u]);
  }
  let column = task.first_column + 4u * (thread % out_fours);
  for (var i = 0u; i < out_rows; i++) {
    let row = thread / out_fours * out_rows + i;
    if (row < task.rows && owned(task, row)) {
      let key = atomicLoad(&tops[row]);
      let sum = fades[row / 4u][row % 4u];
      let start = bound_row(task, row) * uniforms.params.value_dim;
      for (var c = column; c < min(column + 4u, task.columns_end); c++) {
        let value = (*attended)[i][c - column];
        if (uniforms.window.continues != 0u) {
          out[start + c] = bitcast<u32>(value);
        } else if (key != 0u) {
          out[start + c] = select(bitcast<u32>(value / sum), nan_bits, key == invalid_key);
        }
      }
    }
  }
}

// Whether no later sequence has this token too: only bad offsets make sequences overlap.
fn owned(task: Task, row: u32) -> bool {
  if (work.words[overlap_at] == 0u) {
    return true;
  }
  let token = token_of(task, row);
  for (var b = task.sequence + 1u; b < uniforms.params.batch; b++) {
    let at = spans_at + span_words * b;
    if (token - work.words[at] < work.words[at + 1u] / uniforms.window.group_heads) {
      return false;
    }
  }
  return true;
}
