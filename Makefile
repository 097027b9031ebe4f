# `make` lists the verbs. Each one sets up what it needs: a Python >= 3.11, cargo and make suffice.
# PYTHON=/path/to/python chooses the interpreter; otherwise make/find-python does.

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PYTHON ?= $(shell make/find-python)
RUST := Cargo.toml $(wildcard Cargo.lock */Cargo.toml) $(shell find engine/src bridge/src -name '*.rs')

export PATH := $(PATH):$(HOME)/.cargo/bin
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH
# With it, each process that a test starts would compile the package, and each worker of pytest the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the verbs
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

.PHONY: demo
demo: $(VENV)/.built ## Run the shop in demo/ against a real NATS server of its own
	@$(VENV)/bin/python demo/run.py $(ARGS)

.PHONY: test
test: $(VENV)/.installed ## Lint everything, and test Rust and Python (MATRIX=1: every Python; ALL=1: and every fault)
	@MATRIX=$(MATRIX) ALL=$(ALL) $(VENV)/bin/python make/test.py

.PHONY: lint
lint: $(VENV)/.audit ## Run the linters alone, and look for known vulnerabilities
	@$(VENV)/bin/python make/lint.py

# Half of what criterion takes by default: nothing here is as noisy as the workloads after it.
CRITERION := --warm-up-time 1 --measurement-time 2

.PHONY: bench
bench: $(VENV)/.optimized ## Measure against the peers and native Rust (QUICK=1: two minutes)
	@[ -n "$(QUICK)" ] || PYO3_PYTHON=$(VIRTUAL_ENV)/bin/python cargo bench --workspace --bench '*' -- $(CRITERION)
	@QUICK=$(QUICK) $(VENV)/bin/python bench/run.py $(ARGS)

.PHONY: faults
faults: $(VENV)/.built $(VENV)/.faults ## Kill, freeze and cut everything under load, and compare the ledgers
	@$(VENV)/bin/python -m pytest tests/faults -n 4 --reruns=0

.PHONY: compatibility
compatibility: $(VENV)/.built ## Run other projects' own tests with this package for theirs (SUITES=folder)
	@$(VENV)/bin/python make/suites/compatibility.py $(SUITES)

.PHONY: servers
servers: $(VENV)/.built ## Test against other versions of nats-server (SERVERS="2.11 2.15")
	@$(VENV)/bin/python make/servers.py $(or $(SERVERS),2.11 2.12 2.14 2.15) -n 4

.PHONY: wheels
wheels: $(VENV)/.release ## Build the wheel and the sdist into dist/ (TARGET=a Rust target)
	@TARGET=$(TARGET) $(VENV)/bin/python make/wheels.py

.PHONY: install
install: $(VENV)/.installed ## Install from dist/ as a user does, and follow the quickstart (ON="3.13 Django~=6.0.0", KIND=sdist)
	@$(VENV)/bin/python make/try_install.py $(or $(KIND),wheel) $(or $(ON),3.11)

.PHONY: matrix
matrix: $(VENV)/.installed ## Run the Python tests with the wheel of dist/ (ON="3.13 Django~=6.0.0")
	@$(VENV)/bin/python make/pytest_on.py $(ON) -n 4

.PHONY: soak
soak: $(VENV)/.built ## A random mix of faults (MINUTES=10, SEED=n)
	@$(VENV)/bin/python -m tests.faults.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

.PHONY: fuzz
fuzz: $(VENV)/.built ## Try 100,000 inputs on everything that reads what comes from outside (CASES=n)
	@PROPTEST_CASES=$(or $(CASES),100000) cargo test --profile fuzz --package nats-consumer --lib --test route --test retry
	@CASES=$(or $(CASES),100000) $(VENV)/bin/python -m pytest tests/unit -m hypothesis --hypothesis-profile=fuzz \
		--reruns=0 --timeout=0

.PHONY: crate
crate: $(VENV)/.installed ## Test the crate as crates.io would have it, and its features
	@NATS_SERVER=$(VIRTUAL_ENV)/bin/nats-server $(VENV)/bin/python make/crate.py

.PHONY: semver
semver: $(VENV)/.installed ## Compare the interface of the crate with its last release (SINCE=revision)
	@SINCE=$(SINCE) $(VENV)/bin/python make/semver.py

.PHONY: version
version: $(VENV)/.installed ## Print the version (TAG=v3.0.0b1: and what that release lacks)
	@TAG=$(TAG) $(VENV)/bin/python make/version.py

.PHONY: docs
docs: $(VENV)/.built ## Build the documentation site into target/site
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --package nats-consumer
	@$(VENV)/bin/python make/site.py target/site --rust target/doc
	@echo "target/site/index.html"

.PHONY: clean
clean: ## Remove everything that the other verbs made
	rm -rf target dist $(VENV) $(VENV)-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf demo/.nats demo/*.sqlite3* python/nats_consumer/_native*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment, with the tools that develop and test the project.
$(VENV)/.installed: pyproject.toml
	@"$(PYTHON)" -c "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
		echo "No Python >= 3.11 that makes virtual environments was found: install one" \
		"(on Debian with python3-venv), or name it: make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing the development tools into $(VENV) ($(PYTHON)) ..."
	@$(VENV)/bin/python -c "" 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(VENV)/bin/python -m pip install --quiet --group dev
	@touch $@

# What the faults happen to, beside our own: servers that fork, a task queue, a database's driver.
$(VENV)/.faults: $(VENV)/.installed
	@$(VENV)/bin/python -m pip install --quiet --group faults
	@touch $@

# What links the wheels.
$(VENV)/.release: $(VENV)/.installed
	@$(VENV)/bin/python -m pip install --quiet --group release
	@touch $@

$(VENV)/.audit: $(VENV)/.installed
	@$(VENV)/bin/python -m pip install --quiet --group audit
	@touch $@

# The extension module, and the package itself as an editable install. There are two builds: one
# that compiles fast, and the one that users get and `make bench` measures.
$(VENV)/.built: PROFILE := dev
$(VENV)/.optimized: PROFILE := release
$(VENV)/.built $(VENV)/.optimized: $(VENV)/.installed $(RUST)
	@command -v cargo >/dev/null || { echo "cargo was not found: install Rust >= 1.89" \
		"with rustup"; exit 1; }
	@echo "Building nats_consumer._native (profile $(PROFILE)) ..."
	@rm -f $(VENV)/.built $(VENV)/.optimized
	@PIP_QUIET=1 PYO3_PYTHON=$(VIRTUAL_ENV)/bin/python $(VENV)/bin/maturin develop --profile $(PROFILE)
	@touch $@
