#include "repquant/methods/method.h"

namespace repquant {

#define REPQUANT_METHOD(name) \
  namespace methods_rows {    \
  extern const Method name;   \
  }
#include "repquant/methods/registry.def"
#undef REPQUANT_METHOD

const std::vector<const Method*>& methods() {
  static const std::vector<const Method*> rows{
#define REPQUANT_METHOD(name) &methods_rows::name,
#include "repquant/methods/registry.def"
#undef REPQUANT_METHOD
  };
  return rows;
}

const Method& find_method(std::string_view name) {
  std::vector<std::string> names;
  for (const Method* method : methods()) {
    if (method->name == name) return *method;
    names.emplace_back(method->name);
  }
  throw Error(ErrorCode::kInvalidArgument, unknown_name("method", name, names));
}

}  // namespace repquant
