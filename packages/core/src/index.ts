/**
 * Hotset's API: ops, plans and selection. `hotset` re-exports all of it and finds the installed backends;
 * this package alone has the `js` backend only.
 */
export * as attention from "./attention/index.js";
export type { Backend, BackendId, BackendLoader, BackendSource, DeviceBackend, HostBackend } from "./backend.js";
export { type CalibrationCase, type CalibrationStep, calibrate } from "./calibrate.js";
export { defaultHotset, plan, setDefaultHotset } from "./default.js";
export type { DeviceBuffer, DeviceRecorder } from "./device.js";
export type { DType, HostArray, Storage } from "./dtype.js";
export { BackendLoadError, DTypeError, type ErrorCode, FormatError, HotsetError, ShapeError, UnsupportedError } from "./errors.js";
export { bf16ToNumber, f16ToNumber, toBf16, toF16, toI8Rows, toQ8Rows } from "./half.js";
export { createHotset, Hotset, type HotsetSettings } from "./hotset.js";
export { js } from "./js/index.js";
export * as kvCache from "./kv-cache/index.js";
export * as linalg from "./linalg/index.js";
export * as logits from "./logits/index.js";
export type { BackendConstants, MachineConstants, OpShares, Prediction } from "./machine.js";
export type { LoadedModel, ModelConfig, TokenDecoder, Tokenizer } from "./model/config.js";
export type { EvictionCounters, EvictionSettings, SnapKvEviction, StreamingLlmEviction } from "./model/eviction.js";
export * as model from "./model/index.js";
export type { AttentionContext, LayerAttention } from "./model/layer-attention.js";
export { denseAttention } from "./model/layer-attention.js";
export { type GeneratedToken, type GenerateSettings, type Model, type OpenModelSettings, openModel } from "./model/open.js";
export { type LossSettings, PolicyLoss, type TextDivergence, type TextLoss } from "./model/policy-loss.js";
export { readModel } from "./model/read.js";
export { type RecordedAttention, recordAttention } from "./model/record-attention.js";
export { type ReuseAttention, reuseAttention } from "./model/reuse-attention.js";
export * as moe from "./moe/index.js";
export type { Op } from "./op/define.js";
export type { AxesOf, CallArguments, DeviceValue, InputsOf, OutputsOf, Results, TensorLike, TensorValue, VariantOf } from "./op/types.js";
export type { Plan, PlanSettings } from "./plan.js";
export { readSafetensors, type StoredTensor, type StoredTensors } from "./safetensors.js";
export * as search from "./search/index.js";
export type { Candidate, Missing, Residency } from "./select.js";
export type { Step } from "./step.js";
export type { Tensor } from "./tensor.js";
