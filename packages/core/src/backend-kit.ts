/** For authors of backends: the contract, parameter structs, names, and errors. Applications do not need it. */
export type {
  Backend,
  BackendId,
  Binding,
  BoundKernel,
  DeviceBackend,
  DeviceBatch,
  Fault,
  HostBackend,
  Kernel,
  KernelRequest,
  Probe,
} from "./backend.js";
export { isDevice } from "./backend.js";
export type {
  DeviceBinding,
  DeviceBoundKernel,
  DeviceBuffer,
  DeviceKernel,
  DeviceMemory,
  DeviceRecorder,
  DeviceTraits,
  Readback,
} from "./device.js";
export { measureUploads } from "./device.js";
export { lostError } from "./device-step.js";
export { byteLength, type DType, type DTypeInfo, dtypeNames, dtypes, type HostArray, rowLength, storageLength } from "./dtype.js";
export { BackendLoadError, FormatError, HotsetError, UnsupportedError } from "./errors.js";
export { allocShared } from "./js/index.js";
export { dimText, portShape, shapeText } from "./op/axes.js";
export type { AnyAxes, AnyVariant, Axis, Op, OptionPort, Port, ScalarPort, TensorPort } from "./op/define.js";
export { type Field, type Layout, layoutOf, Params, pointerOffsets, type Target } from "./op/layout.js";
export { camelOf, snakeOf, symbolOf, typeNameOf, wgslPathOf } from "./op/symbol.js";
export { portDType, presentTensors, tensorNames, variantKey, variants, variantValues } from "./op/variant.js";
export { type Allocation, bytesOf } from "./tensor.js";
