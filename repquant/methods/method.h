#pragma once
// One registry row: all that the command line and the docs say of a method, and how to run it.
#include <string_view>
#include <vector>

#include "repquant/core/fields.h"
#include "repquant/interpret/workspace.h"

namespace repquant {

struct Needs {
  bool data = true;  // calibration samples
  bool gradients = false;
};

struct Method {
  std::string_view name, summary, reference;
  Needs needs;
  FieldList (*options)();
  // Changes graph, weights and plan of `ws`; throws kInvalidArgument for options that do not go
  // together.
  void (*run)(Workspace& ws, const OptionValues& values);
  // Samples whose activations a gradient step holds at once, 0: none; null: never any.
  int64_t (*trained_samples)(const OptionValues& values) = nullptr;
};

// Every row of registry.def, in its order.
const std::vector<const Method*>& methods();
const Method& find_method(std::string_view name);  // kInvalidArgument, naming the nearest

template <class Options, void (*Run)(Workspace&, const Options&)>
constexpr Method make_method(std::string_view name, std::string_view summary,
                             std::string_view reference, Needs needs) {
  return {name,
          summary,
          reference,
          needs,
          &list_fields<Options>,
          [](Workspace& ws, const OptionValues& values) {
            Run(ws, read_fields<Options>(values, ws.pass));
          }};
}

}  // namespace repquant
