#pragma once
// One shape function an op family; the table is in infer_table.cpp.
#include "repquant/graph/infer_context.h"

namespace repquant::shapes {

// elementwise.cpp: same shape as the first input, or broadcasting
void same(InferContext& c);
void same_as_boolean(InferContext& c);
void variadic(InferContext& c);          // every input broadcast; integer arithmetic followed
void compare(InferContext& c);
void where(InferContext& c);
void cast(InferContext& c);
void cast_like(InferContext& c);
void quantize(InferContext& c);
void dequantize(InferContext& c);
void dynamic_quantize(InferContext& c);
void layer_norm(InferContext& c);

// movement.cpp: elements move, none is computed
void concat(InferContext& c);
void flatten(InferContext& c);
void transpose(InferContext& c);
void squeeze(InferContext& c);
void unsqueeze(InferContext& c);
void reshape(InferContext& c);
void expand(InferContext& c);
void tile(InferContext& c);
void pad(InferContext& c);
void depth_to_space(InferContext& c);
void space_to_depth(InferContext& c);

// indexing.cpp
void gather(InferContext& c);
void gather_elements(InferContext& c);
void gather_nd(InferContext& c);
void slice(InferContext& c);
void split(InferContext& c);
void top_k(InferContext& c);
void compress(InferContext& c);

// making.cpp: shapes and constants as values
void shape(InferContext& c);
void size(InferContext& c);
void range(InferContext& c);
void constant_of_shape(InferContext& c);
void eye_like(InferContext& c);
void one_hot(InferContext& c);
void non_zero(InferContext& c);

// reduce.cpp
void reduce(InferContext& c);
void arg_reduce(InferContext& c);

// matrix.cpp
void mat_mul(InferContext& c);
void mat_mul_integer(InferContext& c);
void qlinear_mat_mul(InferContext& c);
void gemm(InferContext& c);
void linear(InferContext& c);
void einsum(InferContext& c);
void multi_head_attention(InferContext& c);
void onnx_attention(InferContext& c);

// window.cpp: convolution, pooling, resampling
void conv(InferContext& c);
void conv_integer(InferContext& c);
void qlinear_conv(InferContext& c);
void conv_transpose(InferContext& c);
void pool(InferContext& c);
void global_pool(InferContext& c);
void resize(InferContext& c);

}  // namespace repquant::shapes
