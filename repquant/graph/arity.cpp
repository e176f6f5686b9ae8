#include "repquant/graph/arity.h"

namespace repquant {

Arity arity_of(OpKind op) {
  constexpr int kMany = 1 << 20;
  using enum OpKind;
  switch (op) {
    case kLinear: return {2, 3};
    case kMultiHeadAttention: return {3, 4};
    case kLayerNorm: return {2, 3, 1, 3};
    case kRmsNorm: return {2, 3};
    case kOnnxAttention: return {3, 7, 1, 4};
    case kRotaryEmbedding: return {3, 4};
    case kMatMul: return {2, 2};
    case kGemm: case kConv: case kConvTranspose: case kOneHot: return {2, 3};
    case kMatMulInteger: case kConvInteger: return {2, 4};
    case kQLinearMatMul: return {8, 8};
    case kQLinearConv: return {8, 9};
    case kQuantizeLinear: case kDequantizeLinear: return {2, 3};
    case kDynamicQuantizeLinear: return {1, 1, 3, 3};
    case kEinsum: case kMax: case kMin: case kMean: case kSum: case kConcat: return {1, kMany};
    case kBatchNorm: return {5, 5, 1, 5};
    case kGroupNorm: case kInstanceNorm: return {3, 3};
    case kCastLike: case kAdd: case kSub: case kMul: case kDiv: case kPow: case kMod: case kAnd:
    case kOr: case kXor: case kBitShift: case kBitwiseAnd: case kBitwiseOr: case kBitwiseXor:
    case kEqual: case kGreater: case kGreaterOrEqual: case kLess: case kLessOrEqual: case kPRelu:
    case kCumSum: case kCompress: case kExpand: case kGather: case kGatherElements: case kGatherND:
    case kReshape: case kReverseSequence: case kTile: case kUnsqueeze:
      return {2, 2};
    case kWhere: case kRange: case kScatterElements: case kScatterND: return {3, 3};
    case kClip: return {1, 3};
    case kReduceL1: case kReduceL2: case kReduceLogSum: case kReduceLogSumExp: case kReduceMax:
    case kReduceMean: case kReduceMin: case kReduceProd: case kReduceSum: case kReduceSumSquare:
    case kSqueeze: case kTrilu:
      return {1, 2};
    case kTopK: return {2, 2, 1, 2};
    case kMaxPool: return {1, 1, 1, 2};
    case kDropout: return {1, 3, 1, 2};
    case kResize: return {1, 4};
    case kUpsample: return {2, 2};
    case kConstant: return {0, 0};
    case kPad: return {2, 4};
    case kSlice: return {3, 5};
    case kSplit: return {1, 2, 1, kMany};
    default: return {};
  }
}

}  // namespace repquant
