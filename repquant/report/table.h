#pragma once
// Numbers of a report as text: which columns there are and how many digits each has.
#include <string>
#include <vector>

#include "repquant/report/record.h"

namespace repquant::report {

enum class NumberStyle { kFixed, kSigned, kScientific, kBytes };

struct Column {
  std::string heading;
  std::string key;          // of TableRow::cells
  std::string second = {};  // not empty: the upper end of an interval, "78.10 to 83.20"
  NumberStyle style = NumberStyle::kFixed;
  int digits = 2;
};

std::string number_text(double value, const Column& column);

const std::vector<Column>& score_columns();
const std::vector<Column>& layer_columns();

// The columns that at least one row fills.
std::vector<Column> used_columns(const std::vector<Column>& columns,
                                 const std::vector<TableRow>& rows);

}  // namespace repquant::report
