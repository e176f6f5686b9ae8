#pragma once
// The windows of a `patches`, `conv` or `depthwise` step over an image [H, W, C].
#include <cstdint>

#include "repquant/core/plan.h"

namespace repquant {

struct Window {
  int64_t height = 1, width = 1;  // kernel
  int64_t stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1;
  int64_t top = 0, left = 0, bottom = 0, right = 0;

  // Throws kCorruptFile for lists that are missing or of wrong length.
  static Window of(const Step& step);
  void write(Step& step) const;

  // Windows that fit along an axis; 0 or less: none.
  int64_t rows(int64_t image_height) const {
    return along(image_height + top + bottom, height, stride_y, dilation_y);
  }
  int64_t columns(int64_t image_width) const {
    return along(image_width + left + right, width, stride_x, dilation_x);
  }
  bool pads() const { return top != 0 || left != 0 || bottom != 0 || right != 0; }

 private:
  static int64_t along(int64_t size, int64_t kernel, int64_t stride, int64_t dilation) {
    const int64_t last = size - dilation * (kernel - 1) - 1;
    return last < 0 ? 0 : last / stride + 1;
  }
};

}  // namespace repquant
