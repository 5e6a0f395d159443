# The commands of this project. `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
# Two cores: spinning threads made decoding six times slower.
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench bench-methods test-fault test-ray test-vllm test-gpu wheel clean

demo: .venv/.installed  ## the whole line on real models, then the report
	$(BIN)/distill run configs/quickstart.yaml

test: .venv/.dev  ## every test but the long campaigns, the real pipeline once
	$(BIN)/pytest -q -n 2 --dist loadgroup -m "not fault and not vllm and not ray"

check: .venv/.dev  ## format, lint, types, import rules, quick tests
	scripts/check

bench: .venv/.dev  ## side-by-side ratios; see scripts/bench/
	for bench in $(filter-out scripts/bench/methods.py,$(wildcard scripts/bench/*.py)); do $(BIN)/python $$bench || exit 1; done

bench-methods: .venv/.dev  ## every method on real pairs of models: about an hour
	$(BIN)/python scripts/bench/methods.py

test-fault: .venv/.dev  ## crash and fault campaigns: 10,000 kills, 20,000 power cuts, every durability line removed
	$(BIN)/pytest -q -m fault --timeout 7200
	$(BIN)/python scripts/durability.py

test-ray: .venv/.dev  ## the same questions on a local Ray cluster, a worker killed on the way
	$(BIN)/pip install -q -c constraints.txt -e '.[ray]'
	$(BIN)/pytest -q -m ray

test-vllm: .venv/.dev  ## the vLLM engine beside transformers; VLLM_PYTHON=/path/to/python names its environment
	$(BIN)/pytest -q -m vllm --timeout 3600

test-gpu: .venv/.dev  ## on a CUDA machine: the trainer's promises and the bench tables, under ten minutes
	scripts/bench/gpu.sh

wheel: .venv/.dev
	$(BIN)/python -m build --wheel --outdir dist

.venv/.pip: constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt pip
	touch $@

.venv/.installed: .venv/.pip pyproject.toml
	$(BIN)/pip install -q -c constraints.txt -e '.[all]'
	touch $@

.venv/.dev: .venv/.installed
	$(BIN)/pip install -q -c constraints.txt --group dev
	touch $@

clean:
	rm -rf .venv dist build runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
