#include "repquant/graph/dims.h"

#include <algorithm>
#include <charconv>
#include <cctype>

#include "repquant/graph/infer.h"

namespace repquant {
namespace {

constexpr size_t kMaxSymbol = 160;   // longer expressions are not worth keeping

struct Monomial {
  int64_t factor = 1;
  std::vector<std::string> symbols;   // sorted
};

[[noreturn]] void overflow() {
  throw Error(ErrorCode::kCorruptFile, "expected sizes that fit into 64 bits, got an overflow");
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Splits at '*' outside of parentheses.
Monomial parse(const std::string& text) {
  Monomial result;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size()) {
      depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
      if (depth > 0 || text[i] != '*') continue;
    }
    const std::string part = text.substr(begin, i - begin);
    if (const auto number = whole_number(part)) result.factor = checked_mul(result.factor, *number);
    else result.symbols.push_back(part);
    begin = i + 1;
  }
  std::sort(result.symbols.begin(), result.symbols.end());
  return result;
}

Monomial monomial(const Dim& dim) {
  if (dim.known()) return {dim.size, {}};
  return parse(dim.symbol);
}

Dim to_dim(const Monomial& m) {
  if (m.symbols.empty() || m.factor == 0) return known_dim(m.factor);
  Dim dim;
  if (m.factor != 1) dim.symbol = std::to_string(m.factor);
  for (const auto& symbol : m.symbols) dim.symbol += (dim.symbol.empty() ? "" : "*") + symbol;
  if (dim.symbol.size() > kMaxSymbol) dim.symbol.clear();
  return dim;
}

Dim symbol_dim(std::string text) {
  Dim dim;
  if (text.size() <= kMaxSymbol) dim.symbol = std::move(text);
  return dim;
}

// "(m+3)" -> m, 3. Anything else -> itself, 0.
std::pair<std::string, int64_t> split_sum(const std::string& text) {
  if (text.size() < 4 || text.front() != '(' || text.back() != ')') return {text, 0};
  int depth = 0;
  for (size_t i = text.size() - 1; i > 0; --i) {
    depth += text[i] == ')' ? 1 : text[i] == '(' ? -1 : 0;
    if (depth == 0) break;   // the first parenthesis closes before the end: not one group
    if (depth != 1 || (text[i] != '+' && text[i] != '-')) continue;
    const auto number = whole_number(std::string_view(text).substr(i + 1, text.size() - i - 2));
    if (!number || *number < 0) break;
    return {text.substr(1, i - 1), text[i] == '-' ? -*number : *number};
  }
  return {text, 0};
}

}  // namespace

int64_t checked_add(int64_t a, int64_t b) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) overflow();
  return sum;
}

int64_t checked_mul(int64_t a, int64_t b) {
  int64_t result;
  if (__builtin_mul_overflow(a, b, &result)) overflow();
  return result;
}

std::string symbol_from_file(const std::string& given) {
  std::string text = given;
  std::erase(text, ' ');
  int depth = 0;
  bool plain = !text.empty();
  for (const char c : text) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (depth < 0 || static_cast<unsigned char>(c) < 33 || static_cast<unsigned char>(c) > 126)
      return {};
    plain = plain && (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.');
  }
  if (depth != 0 || text.size() > 64 || whole_number(text)) return {};
  return plain || text.empty() ? text : "(" + text + ")";
}

Dim multiply(const Dim& a, const Dim& b) {
  if (a.known() && b.known()) return known_dim(checked_mul(a.size, b.size));
  if (is_unknown(a) || is_unknown(b)) return {};
  Monomial left = monomial(a);
  const Monomial right = monomial(b);
  left.factor = checked_mul(left.factor, right.factor);
  left.symbols.insert(left.symbols.end(), right.symbols.begin(), right.symbols.end());
  std::sort(left.symbols.begin(), left.symbols.end());
  return to_dim(left);
}

Dim product(std::span<const Dim> dims) {
  Dim result = known_dim(1);
  for (const Dim& dim : dims) result = multiply(result, dim);
  return result;
}

Dim add(const Dim& a, int64_t b) {
  if (a.known()) return known_dim(std::max<int64_t>(0, checked_add(a.size, b)));
  if (is_unknown(a) || b == 0) return a;
  const auto [base, constant] = split_sum(a.symbol);
  const int64_t sum = checked_add(constant, b);
  if (sum == 0) return symbol_dim(base);
  return symbol_dim("(" + base + (sum > 0 ? "+" : "") + std::to_string(sum) + ")");
}

Dim add(const Dim& a, const Dim& b) {
  if (b.known()) return add(a, b.size);
  if (a.known()) return add(b, a.size);
  if (is_unknown(a) || is_unknown(b)) return {};
  Monomial left = monomial(a);
  const Monomial right = monomial(b);
  if (left.symbols == right.symbols) {
    left.factor = checked_add(left.factor, right.factor);
    return to_dim(left);
  }
  return symbol_dim("(" + std::min(a.symbol, b.symbol) + "+" + std::max(a.symbol, b.symbol) + ")");
}

Dim floor_divide(const Dim& a, int64_t b) {
  REPQUANT_CHECK(b > 0);
  if (a.known()) return known_dim(a.size / b);
  if (is_unknown(a) || b == 1) return a;
  Monomial m = monomial(a);
  if (m.factor % b == 0) {
    m.factor /= b;
    return to_dim(m);
  }
  return symbol_dim("floor(" + a.symbol + "/" + std::to_string(b) + ")");
}

std::optional<Dim> divide(const Dim& a, const Dim& b) {
  if (is_unknown(a) || is_unknown(b)) return std::nullopt;
  Monomial left = monomial(a);
  const Monomial right = monomial(b);
  if (right.factor == 0 || left.factor % right.factor != 0) return std::nullopt;
  left.factor /= right.factor;
  for (const auto& symbol : right.symbols) {
    const auto it = std::find(left.symbols.begin(), left.symbols.end(), symbol);
    if (it == left.symbols.end()) return std::nullopt;
    left.symbols.erase(it);
  }
  return to_dim(left);
}

std::optional<Dim> merge(const Dim& a, const Dim& b) {
  if (a.known() && b.known() && a.size != b.size) return std::nullopt;
  if (a.known()) return a;
  if (b.known()) return b;
  return a.symbol.empty() ? b : a;
}

std::optional<Dim> broadcast(const Dim& a, const Dim& b) {
  if (a == b) return a;
  if (a.known() && a.size == 1) return b;
  if (b.known() && b.size == 1) return a;
  if (a.known() && b.known()) return std::nullopt;
  if (a.known()) return a;
  if (b.known()) return b;
  return Dim{};
}

}  // namespace repquant
