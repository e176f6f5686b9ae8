#include "repquant/graph/ops/shape_functions.h"

namespace repquant {
namespace {

InferFunction windows_and_products(OpKind op) {
  using enum OpKind;
  switch (op) {
    case kLinear: return shapes::linear;
    case kMultiHeadAttention: return shapes::multi_head_attention;
    case kOnnxAttention: return shapes::onnx_attention;
    case kMatMul: return shapes::mat_mul;
    case kMatMulInteger: return shapes::mat_mul_integer;
    case kQLinearMatMul: return shapes::qlinear_mat_mul;
    case kGemm: return shapes::gemm;
    case kEinsum: return shapes::einsum;
    case kConv: return shapes::conv;
    case kConvInteger: return shapes::conv_integer;
    case kQLinearConv: return shapes::qlinear_conv;
    case kConvTranspose: return shapes::conv_transpose;
    case kAveragePool: case kMaxPool: case kLpPool: return shapes::pool;
    case kGlobalAveragePool: case kGlobalMaxPool: return shapes::global_pool;
    case kResize: return shapes::resize;
    default: return nullptr;
  }
}

InferFunction movement(OpKind op) {
  using enum OpKind;
  switch (op) {
    case kConcat: return shapes::concat;
    case kFlatten: return shapes::flatten;
    case kTranspose: return shapes::transpose;
    case kSqueeze: return shapes::squeeze;
    case kUnsqueeze: return shapes::unsqueeze;
    case kReshape: return shapes::reshape;
    case kExpand: return shapes::expand;
    case kTile: return shapes::tile;
    case kPad: return shapes::pad;
    case kDepthToSpace: return shapes::depth_to_space;
    case kSpaceToDepth: return shapes::space_to_depth;
    case kGather: return shapes::gather;
    case kGatherElements: return shapes::gather_elements;
    case kGatherND: return shapes::gather_nd;
    case kSlice: return shapes::slice;
    case kSplit: return shapes::split;
    case kTopK: return shapes::top_k;
    case kCompress: return shapes::compress;
    case kShape: return shapes::shape;
    case kSize: return shapes::size;
    case kRange: return shapes::range;
    case kConstantOfShape: return shapes::constant_of_shape;
    case kEyeLike: return shapes::eye_like;
    case kOneHot: return shapes::one_hot;
    case kNonZero: return shapes::non_zero;
    default: return nullptr;
  }
}

InferFunction many_inputs(OpKind op) {
  using enum OpKind;
  switch (op) {
    case kAdd:
    case kSub:
    case kMul:
    case kDiv:
    case kPow:
    case kMod:
    case kMax:
    case kMin:
    case kMean:
    case kSum: case kBitShift: case kBitwiseAnd: case kBitwiseOr: case kBitwiseXor: case kPRelu:
      return shapes::variadic;
    case kAnd: case kOr: case kXor: case kEqual: case kGreater: case kGreaterOrEqual: case kLess:
    case kLessOrEqual:
      return shapes::compare;
    case kWhere: return shapes::where;
    case kCast: return shapes::cast;
    case kCastLike: return shapes::cast_like;
    case kQuantizeLinear: return shapes::quantize;
    case kDequantizeLinear: return shapes::dequantize;
    case kDynamicQuantizeLinear: return shapes::dynamic_quantize;
    case kLayerNorm: return shapes::layer_norm;
    case kReduceL1: case kReduceL2: case kReduceLogSum: case kReduceLogSumExp: case kReduceMax:
    case kReduceMean: case kReduceMin: case kReduceProd: case kReduceSum: case kReduceSumSquare:
      return shapes::reduce;
    case kArgMax: case kArgMin: return shapes::arg_reduce;
    case kIsInf: case kIsNaN: case kNot: return shapes::same_as_boolean;
    default: return nullptr;
  }
}

}  // namespace

InferFunction infer_function(OpKind op) {
  if (const auto found = windows_and_products(op)) return found;
  if (const auto found = movement(op)) return found;
  if (const auto found = many_inputs(op)) return found;
  if (op == OpKind::kConstant || op == OpKind::kUpsample)
    return nullptr;  // the importer removes them
  return shapes::same;   // everything else keeps the shape of its first input
}

}  // namespace repquant
