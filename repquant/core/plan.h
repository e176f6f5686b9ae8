#pragma once
// The step list: what an artifact says is computed. Lowering writes it, the simulator and the
// runtime each execute it, and share nothing else but core/format. Arithmetic: the laws named per
// step are the scalar functions of core/format; the numbers they need lie in named tensors of the
// artifact (f32/i32), never in decimal text.
//
// Batch: every buffer has an item shape (one image); a run with batch N computes each item alone,
// so the buffer holds [N, item shape...]. The last item dimension is the row length ("channels"),
// the product of the others the rows of an item.
//
// `tensors` maps a role to the name of an artifact tensor, always "<step>.<role>".
//
// op              in -> out               tensors, ints, strings; law
// ---------------------------------------------------------------------------------------------------
// quantize        f32 -> u8               inv f32[1]; zero, lo, hi
//                                         uniform: q = rne(clampf(x*inv, lo-zero, hi-zero)) + zero
//                                         with string kind (and p) as of `activation`: f(x) for x
// quantize_log    f32 -> u8               shift f32[1], thr f32[K] (descending)
//                                         q = #{i : x + shift < thr[i]}   (one f32 add)
// table           u8 -> u8                lut u8[256]; q = lut[a]
// dequantize      u8 -> f32               s f32[1]; zero; x = s * float(q - zero)
// linear          u8 codes [.., K] (, f32 residual [.., N]) -> u8 or f32 [.., N]
//                 w (codes [N][K], signed, packed canon8/4/3/2, see PlanTensor), c i32[N], zw
//                 i32[N] (absent: all zero); ints: za (zero point of the input codes; also inside
//                 c); t = sum_k a*w + c[n] - zw[n]*sum_k(a - za)              int32, exact codes
//                 out: m f32[N]; ints zero, lo, hi
//                   q = rne(clampf(float(t)*m[n], lo-zero, hi-zero)) + zero; may have lut
//                   u8[256], then the code handed out is lut[q]
//                 f32 out: s f32[N], b f32[N]; y = fmaf(float(t), s[n], b[n]);
//                   with a second input: y = residual + that, one f32 add
// patches         u8 [H, W, C] -> u8 [OH, OW, kh*kw*C], the windows of a convolution: element
//                 (ky*kw + kx)*C + c is the code at (oy*sh + ky*dh - top, ox*sw + kx*dw - left, c),
//                 or int fill outside the image; lists kernel {kh, kw}, strides {sh, sw}, dilations
//                 {dh, dw}, pads {top, left, bottom, right}
// conv            u8 [H, W, C] (, f32 residual [OH, OW, N]) -> u8 or f32 [OH, OW, N]; lists as
//                 patches; w [N][kh*kw*C] and all else as linear, the windows of patches as rows;
//                 outside the image: za
// depthwise       u8 [H, W, C] -> u8 or f32 [OH, OW, C]; lists as patches; w [C][kh*kw], c, zw, za,
//                 m, s, b as linear, with the window of one channel as row; outside the image: za
// pad             f32 or u8 -> the same with lists before, after {one number an axis of the item}
//                 more elements; 0, codes: int fill
// attention       q, k, v u8 codes, each [T, heads*d], or [W, T, heads*d]: W windows, each for
//                 itself -> u8 or f32 of that shape
//                 ints heads, zq, zk, zv; m f32[1 or heads] = sq*sk*scale; may have bias
//                 f32[1 or W, 1 or heads, T, T] and mask u8[1 or W, T, T] of 0 and 1, by query, key
//                 S = sum_d (q-zq)(k-zk); x = float(S)*m, then + bias, one f32 add; where the mask
//                 is 0 the key is left out: e = 0; else e = exp(x - max of those kept); sum in 16
//                 virtual lanes; a query without keys yields acc = 0 and u = 0
//                 strings codes: "log": p = e/sum, q = #{i : p < thr[i]}, thr f32[K];
//                                "uniform": q of p by `quantize` (pinv f32[1]; plo = 0, phi), level
//                                q; "row": q = rne(255*e)   (level q, divisor = sum of the row's
//                                codes)
//                 strings pv: "table": level = lut u8[K+1] (lut[K] = 0);
//                             "table2": level = lut u16[K+1]; "parity": see log.h; "row"/"plain":
//                             the code
//                 acc = sum_k level*(v - zv)  exact (int64 where int32 could overflow)
//                 out: u = float(acc)*mo[h], mo f32[1 or heads]  ("row": u =
//                 (float(acc)/float(total))*mo) codes out: q = rne(clampf(u, lo-zero, hi-zero)) +
//                 zero; f32 out: u
// layer_norm      f32 [.., D] -> u8 or f32; g f32[D], beta f32[D], eps f32[1]; codes: zero, lo, hi;
//                 D: the last axis, or the product of several trailing axes
//                 v = ((x-mean)*rstd)*g + beta, separate roundings; q = rne(clampf(v, lo-zero,
//                 hi-zero))+zero
// rms_norm        same without the mean; beta may be absent
// l2_norm         f32 -> f32 in rows of int width elements, which divides C; eps f32[1]; y = x / n,
//                 n = max(sqrt(sum of x*x in 16 virtual lanes), eps), IEEE root and division
// softmax         f32 [.., C] -> f32; y = e / sum, e = exp(x - max), sum in 16 virtual lanes
// matmul          f32 [.., K] and weight f32[K, N], may have b f32[N] -> f32 [.., N]; or f32
//                 [.., M, K], f32 [.., K, N] -> f32 [.., M, N], leading axes equal
//                 y = 0; k ascending: y = fmaf(x[k], w[k][n], y); then y + b[n], one f32 add
// copy_rows       f32 or u8 -> the same, both in rows of int width elements; index i32[rows of out];
//                 row r = row index[r] of the input
// activation      f32 -> f32; string kind: a name of kFunctionLaws (core/format/functions.h), its
//                 parameters in p f32[1 or 2] where it has some (clip: p[0] <= p[1])
// binary          f32 A, f32 B -> f32, item shapes broadcast as in NumPy; B an input or tensor const
//                 f32 of rank 1 or more; string kind: add | sub | rsub (B - A) | mul | div | rdiv
//                 (B / A) | max | min (core/format/functions.h)
// add             f32, f32 (same item shape) -> f32; or one input and tensor const f32 (item shape,
//                 or [C] repeated over rows)
// mul             f32 and tensor const f32 as in add -> f32
// prepend         f32 or u8 [R, C] -> [P+R, C]; const f32/u8 [P, C] in front (class token)
// slice           item rows: lists range = {axis, start, stop, step} (axis of the item) -> copy
// transpose       lists dims (item viewed as), perm -> copy; the out buffer's item shape = result
//                 (any reshape of the permuted dims)
// max_pool        f32 or u8 [H, W, C] -> the same [OH, OW, C]; lists as patches, pads smaller than
//                 the kernel's extent; m = first element of the window inside the image, rows
//                 before columns, then m = max_f32(m, x)
// average_pool    f32 [H, W, C] -> f32 [OH, OW, C]; as max_pool: s = 0; s = s + x; one division by
//                 the number of elements inside, or by kh*kw where int include_pad is 1
// concat          f32 or u8, 2 to 16 inputs -> the same; int axis of the item; copies
// reduce          f32 -> f32; list axes {first, last} of the item, both included, which the output
//                 lacks or has as 1; string kind: mean | sum | max | min | l2 | sum_square: the
//                 elements in ascending order go to 16 virtual lanes (core/format/reduce.h), joined
//                 as sums are; mean: one division; l2: one square root
// gather_rows     i64 or i32 [..] -> f32 [.., C]; table f32 [V, C]; row i, i + V where i < 0, then
//                 clamped to [0, V-1]
// cast            i64 or i32 -> f32, rounded to nearest even
// mean_rows       f32 [.., C] -> [C]: 16-lane sum over all R rows per channel, one division by R
// ---------------------------------------------------------------------------------------------------
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "repquant/core/tensor.h"

namespace repquant {

struct Buffer {
  std::string name;
  DType dtype = DType::kF32;  // kU8 codes, kF32; inputs of the plan: also kI64, kI32
  Shape item_shape;           // without the batch
  int bits = 32;              // codes: how many bits are used; else of the type
  bool operator==(const Buffer&) const = default;
};

struct Step {
  std::string op, name;
  std::vector<int> in, out;                    // indices of Plan::buffers
  std::map<std::string, std::string> tensors;  // role -> artifact tensor
  std::map<std::string, int64_t> ints;
  std::map<std::string, std::string> strings;
  std::map<std::string, std::vector<int64_t>> lists;
  bool operator==(const Step&) const = default;
};

// One tensor of the artifact. Packed weights: data is U8 [N][row bytes], logical shape [N, K], rows
// padded to a byte. canon8: one s8 a byte; canon4: even k in the low nibble, two's complement;
// canon2: k in bits 2(k mod 4).. ; canon3: per row a canon2 plane of the low two bits, then a plane
// of the high bit (k in bit k mod 8), two's complement of 3 bits. 5, 6, 7 bits are canon8.
struct PlanTensor {
  std::string name;
  Tensor data;
  std::string layout = "plain";  // plain, canon8, canon4, canon3, canon2
  int bits = 0;                  // packed weights only
  Shape logical_shape;           // packed weights only
  std::string role;              // last part of the name: w, c, m, ...
};

struct Plan {
  nlohmann::json model;    // preprocessing, class names, family, input and output names
  nlohmann::json quality;  // per-step SQNR, task metrics; may be empty
  nlohmann::json
      provenance;  // tool version, effective recipe, source digests, calibration fingerprint
  std::vector<Buffer> buffers;
  std::vector<int> inputs, outputs;           // buffer indices; outputs f32
  std::vector<Step> steps;                    // in execution order
  std::map<std::string, PlanTensor> tensors;  // by name

  const Tensor& tensor(const Step& step, const std::string& role) const;  // throws kCorruptFile
  const Tensor* find_tensor(const Step& step, const std::string& role) const;  // nullptr if absent
  int64_t integer(const Step& step, const std::string& key) const;  // throws kCorruptFile
};

// Codes [N][K] to and from the packed layouts; values are checked to fit `bits` (two's complement).
Tensor pack_weights(std::span<const int8_t> codes, int64_t n, int64_t k, int bits);
std::string layout_for(int bits);              // canon2, canon3, canon4 or canon8
void check_weights(const PlanTensor& tensor);  // shape, layout, range; throws kCorruptFile
std::vector<int8_t> unpack_weights(const PlanTensor& tensor);  // [N*K]

// Checks what opening an artifact must check, independent of any executor: ops known, every
// operand's shape and dtype, scale lengths, finite positive multipliers in [2^-100, 2^100],
// thresholds descending, accumulator bounds, buffers written before read, one writer each. Throws
// kCorruptFile naming the step, what was expected and what was found; kUnsupported for an unknown
// op.
void verify_plan(const Plan& plan);

}  // namespace repquant
