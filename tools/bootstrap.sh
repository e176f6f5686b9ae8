#!/usr/bin/env bash
# Installs what building and testing need, and nothing twice: Debian packages, then a Python
# environment in .venv that holds a CPU build of libtorch.
#   tools/bootstrap.sh [--runtime-only]
# --runtime-only: what repquant-run needs; no Python environment.
# REPQUANT_TORCH_INDEX: package index with CPU builds of torch. REPQUANT_VENV: another folder than .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TORCH=2.13.0
readonly VENV="${REPQUANT_VENV:-.venv}"
# With their dependencies; then without: timm and what it imports would pull another torch.
readonly PYTHON_PACKAGES=(numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 onnxscript==0.7.2
  safetensors==0.8.0 pillow==13.0.0)
readonly PYTHON_PACKAGES_ALONE=(timm==1.0.31 huggingface_hub==2.4.0 PyYAML==6.0.3)

readonly RUNTIME_PACKAGES=(g++ cmake ninja-build ccache mold pkg-config make git
  libfmt-dev nlohmann-json3-dev libtomlplusplus-dev libcli11-dev libssl-dev
  libjpeg62-turbo-dev libpng-dev zlib1g-dev libzip-dev libgtest-dev libgmock-dev python3)
readonly FULL_PACKAGES=(libonnx-dev libprotobuf-dev protobuf-compiler python3-venv python3-dev
  clang libclang-rt-14-dev llvm libonnx-testdata dataset-fashion-mnist chromium)

say() { printf 'bootstrap: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

runtime_only=no
case "${1:-}" in
  "") ;;
  --runtime-only) runtime_only=yes ;;
  *) stop "unknown option \"$1\"; the only one is --runtime-only" ;;
esac

install_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null ||
    stop "no dpkg here: install the equivalents of these Debian packages by hand: $*"
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "run as root, or install: apt-get install ${missing[*]}"
    sudo=(sudo)
  fi
  say "installing ${missing[*]}"
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
  "${apt[@]}" update >&2 || stop "apt-get update reached no package source (see /etc/apt/sources.list and the network)"
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >&2 ||
    stop "apt-get could not install: ${missing[*]}"
}

# What the environment must be; a stamp of it says that it is.
stamp() { printf '%s\n' "torch==$TORCH" "${PYTHON_PACKAGES[@]}" "${PYTHON_PACKAGES_ALONE[@]}"; }

# The torch of the environment is a CPU build.
is_cpu_build() {
  local file
  for file in "$VENV"/lib/python3*/site-packages/torch/version.py; do
    [ -f "$file" ] && grep -Eq '^cuda(: *[^=]*)? *= *None' "$file" && return 0
  done
  return 1
}

has_torch() { compgen -G "$VENV/lib/python3*/site-packages/torch/version.py" >/dev/null; }

install_python() {
  if [ -f "$VENV/repquant-stamp" ] && stamp | cmp -s - "$VENV/repquant-stamp" && is_cpu_build; then
    return
  fi
  local no_index="pip reached no package index (PIP_INDEX_URL, PIP_FIND_LINKS and the network decide where it looks)"
  local one_line="REPQUANT_TORCH_INDEX=<URL of an index with CPU builds of torch> tools/bootstrap.sh"
  if ! [ -x "$VENV/bin/python" ]; then
    say "making $VENV"
    python3 -m venv "$VENV" || stop "python3 could not make $VENV (package python3-venv)"
  fi
  local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet)
  if has_torch && ! is_cpu_build; then
    stop "$VENV holds a torch that is not a CPU build; delete the folder and run: $one_line"
  fi
  if ! has_torch; then
    local index=() report
    [ -n "${REPQUANT_TORCH_INDEX:-}" ] && index=(--index-url "$REPQUANT_TORCH_INDEX")
    # Ask first: a CUDA build is several gigabytes.
    report=$("${pip[@]}" install --dry-run --no-deps --report - "${index[@]}" "torch==$TORCH") ||
      stop "$no_index; torch==$TORCH not found. With another index: $one_line"
    if grep -Eq '"(nvidia-|cuda-|triton)' <<<"$report"; then
      stop "torch==$TORCH here is a CUDA build. Run: $one_line"
    fi
    say "installing torch==$TORCH"
    if [ ${#index[@]} -gt 0 ]; then   # its dependencies may be elsewhere
      "${pip[@]}" install --no-deps "${index[@]}" "torch==$TORCH" || stop "$no_index"
    fi
    "${pip[@]}" install "torch==$TORCH" || stop "$no_index"
    if ! is_cpu_build; then
      "${pip[@]}" uninstall -y torch
      stop "torch==$TORCH here is not a CPU build. Run: $one_line"
    fi
  fi
  say "installing ${PYTHON_PACKAGES[*]} ${PYTHON_PACKAGES_ALONE[*]}"
  "${pip[@]}" install "${PYTHON_PACKAGES[@]}" || stop "$no_index"
  "${pip[@]}" install --no-deps "${PYTHON_PACKAGES_ALONE[@]}" || stop "$no_index"
  stamp > "$VENV/repquant-stamp"
}

if [ "$runtime_only" = yes ]; then
  install_packages "${RUNTIME_PACKAGES[@]}"
else
  install_packages "${RUNTIME_PACKAGES[@]}" "${FULL_PACKAGES[@]}"
  install_python
fi
say "ready"
