#!/usr/bin/env bash
# Runs every fuzz target on its seeds and what it finds:   tools/fuzz.sh [SECONDS, default 60]
# Fails at the first finding, or when less than half of a parser was reached. Reached means: regions of
# the parser's own .cpp files (llvm-cov, clang's source-based coverage; fuzz/CMakeLists.txt lists them)
# run at least once by the corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"
build=build/fuzz

say() { printf 'fuzz: %s\n' "$*"; }

declare -A seeds=([artifact]=fuzz/corpus/artifact [program]=fuzz/corpus/program [onnx]="fuzz/corpus/onnx $build/node_tests"
  [recipe]="recipes fuzz/corpus/recipe")

# The models of ONNX's own node tests, where Debian's libonnx-testdata is installed.
node_tests() {
  local model name
  mkdir -p "$build/node_tests"
  for model in /usr/share/libonnx-testdata/data/node/*/model.onnx; do
    [ -f "$model" ] || continue
    name=$(basename "$(dirname "$model")")
    [ "$(stat -c %s "$model")" -le 16384 ] && cp "$model" "$build/node_tests/$name.onnx"
  done
}

configure() {
  cmake --preset fuzz >/dev/null
  cmake --build --preset fuzz --target fuzz_artifact fuzz_program fuzz_onnx fuzz_recipe
}

run_target() {
  local name="$1" work="$build/corpus/$1" dictionary=() extra=()
  mkdir -p "$work" "$build/findings"
  [ -f "fuzz/$name.dict" ] && dictionary=("-dict=fuzz/$name.dict")
  local folder
  for folder in ${seeds[$name]}; do [ -d "$folder" ] && extra+=("$folder"); done
  say "$name: $seconds s"
  if ! "$build/bin/fuzz_$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="$build/findings/$name-" "${dictionary[@]}" "$work" "${extra[@]}" >"$build/$name.log" 2>&1; then
    tail -40 "$build/$name.log"
    say "$name: FINDING; the input lies in $build/findings"
    return 1
  fi
  grep -E 'number_of_executed_units|DONE' "$build/$name.log" || true
}

coverage() {
  local name="$1" work="$build/corpus/$1" profile="$build/$1.profdata" folder all=()
  for folder in "$work" ${seeds[$name]}; do [ -d "$folder" ] && all+=("$folder"); done
  LLVM_PROFILE_FILE="$build/$name.profraw" "$build/bin/fuzz_$name" -runs=0 -rss_limit_mb=2048 "${all[@]}" >/dev/null 2>&1
  llvm-profdata merge -sparse "$build/$name.profraw" -o "$profile"
  # Columns of the report: file, regions, missed, covered, ...
  llvm-cov report "$build/bin/fuzz_$name" -instr-profile="$profile" 2>/dev/null |
    awk -v name="$name" '
      $1 ~ /\.cpp$/ { regions += $2; missed += $3 }
      END {
        if (regions == 0) { print "fuzz: " name ": no coverage data"; exit 1 }
        printf "fuzz: %s: %d of %d regions of the parser reached (%.1f %%)\n", name, regions - missed, regions,
               100 * (regions - missed) / regions
        exit 2 * (regions - missed) < regions
      }'
}

configure
node_tests
for name in artifact program onnx recipe; do
  run_target "$name"
  coverage "$name"
done
