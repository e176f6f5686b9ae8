#pragma once
// Pieces of the frame that know the command line's habits.
#include <string>
#include <vector>

#include "cli/command.h"

namespace repquant::cli {

void declare_common(CLI::App& app, Common& common);
// Index of the first word that is neither an option nor the value of one; words.size(): none.
size_t find_verb(const std::vector<std::string>& words);
// What was wrong, in one line, with the nearest option where one is unknown.
std::string usage_error(const CLI::App& app, const CLI::ParseError& error,
                        const std::vector<std::string>& words);
// One screen; `all` adds the groups Common and Preprocessing.
std::string help_text(CLI::App& app, bool all);
std::string overview(const char* name, const std::vector<Command>& commands);
// Of the build, abbreviated; "" where it is not known.
std::string_view commit();
std::string version_text(const char* name, const Parts* parts);
// For options of a few values; says which is nearest.
CLI::Validator one_of(std::vector<std::string> names);
// "2GiB", "512MB", "1048576", "80%" of what is installed; throws kInvalidArgument.
uint64_t parse_size(const std::string& text);

}  // namespace repquant::cli
