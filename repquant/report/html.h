#pragma once
// A run record as a document. Both functions accept anything that is JSON (repquant/report/record.h
// says what is read); parts that are missing are left out, and a note says so.
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace repquant {

// One self-contained file: no script, no external resource. Each figure of a table is
// <span data-value="RAW" data-key="POINTER">TEXT</span>, POINTER the RFC 6901 place of RAW in
// `run`.
std::string html_report(const nlohmann::json& run);

std::string markdown_report(const nlohmann::json& run);

namespace report {
// For text and quoted attribute values; control characters become U+FFFD.
std::string escape_html(std::string_view text);
}  // namespace report

}  // namespace repquant
