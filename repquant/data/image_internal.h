#pragma once
// Shared by the decoders.
#include <cstdint>
#include <string>

namespace repquant::image_detail {

// Throws kCorruptFile unless 1 <= width * height <= kMaxImagePixels.
void check_size(int64_t width, int64_t height, const std::string& subject);

}  // namespace repquant::image_detail
