# Thin: each target sets the machine up if it must, then calls a CMake preset.
#   make build     build/release/bin/repquant and repquant-run
#   make test      builds, then runs every test
#   make demo      quantizes a vision transformer and shows what it costs; DEMO=full scores all 10,000
#                  images; MODEL= DATA= LABELS= PREPROCESS= take yours
#   make bench     speed of the demo model against onnxruntime; bench/run.py measures the real ones
#   make docs      rewrites the option tables of docs/methods from the built program
#   make fuzz      60 s of each fuzz target; FUZZ_SECONDS= changes that
#   make install   PREFIX=/usr/local
#   make clean
export REPQUANT_ASSETS := $(abspath $(if $(REPQUANT_ASSETS),$(REPQUANT_ASSETS),../shared/assets))
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: build test demo bench docs fuzz install clean bootstrap
.DEFAULT_GOAL := build

bootstrap:
	@tools/bootstrap.sh

build: bootstrap
	@cmake --preset release
	@cmake --build --preset release --parallel $(JOBS)

test: build
	@python3 tools/run_tests.py build/release

demo: build
	@MODEL="$(MODEL)" DATA="$(DATA)" LABELS="$(LABELS)" PREPROCESS="$(PREPROCESS)" DEMO="$(DEMO)" python3 tools/demo.py

bench: build
	@python3 bench/run.py --short

docs: build
	@python3 tools/method_tables.py --write build/release/bin/repquant

fuzz: bootstrap
	@tools/fuzz.sh $(or $(FUZZ_SECONDS),60)

install: build
	@cmake --install build/release --prefix $(PREFIX)

clean:
	@rm -rf build
