#pragma once
// The ONNX message classes, and how this folder words its errors.
#include <string>
#include <string_view>

#include <onnx/onnx_pb.h>

#include "repquant/core/error.h"

namespace repquant::load {

// `name` in double quotes with everything unprintable escaped, cut at 120 characters.
std::string in_quotes(std::string_view name);

[[noreturn]] void corrupt(const std::string& what, const std::string& hint = {});
[[noreturn]] void unsupported(const std::string& what, const std::string& hint = {});

}  // namespace repquant::load
