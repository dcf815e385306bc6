// The end of a tile of attention/prefill, and what goes from one window of pages to the next: the key of a row's largest logit
// and the sum of its weights in scratch, its weighted values in `out`. Workgroups that share the columns of values all need
// the states of before, so the first of them writes its own elsewhere.

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
