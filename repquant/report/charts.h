#pragma once
// Charts as SVG text. Widths are percentages, so that letters keep their size at any width; heights
// are pixels. Colours are the CSS classes of the page (style.cpp). Each chart has a title and a
// description and a box that is never empty.
#include <string>
#include <vector>

#include "repquant/report/record.h"

namespace repquant::report {

// Top-1 and its interval, one line a model; rows without top1 are left out. Empty if none has one.
std::string accuracy_chart(const std::vector<TableRow>& rows);

// SQNR in dB, one line a layer: before (thin) and after. Empty if no layer has one.
std::string sqnr_chart(const std::vector<TableRow>& layers);

// Range of each channel as measured, with the clipping bounds over it. Empty without either.
std::string range_chart_before(const ChannelRanges& ranges);
// Range of each channel behind the fold. Empty without it.
std::string range_chart_folded(const ChannelRanges& ranges);

// The widest channel's range in units of the median one: how uneven they are. 0 without ranges or
// where the median is 0.
double widest_to_median(const std::vector<double>& low, const std::vector<double>& high);

// How often each code occurs. `what`: "weight codes".
std::string histogram_chart(const CodeHistogram& histogram, const std::string& what);

// Entropy of the codes in bits; 0 without counts.
double entropy_bits(const CodeHistogram& histogram);
int64_t codes_used(const CodeHistogram& histogram);

// At most `limit` bytes and an ellipsis in the middle; never splits a UTF-8 sequence.
std::string shortened(const std::string& text, size_t limit);

}  // namespace repquant::report
