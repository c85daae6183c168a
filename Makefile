# make demo   a small real zoo, from nothing
# make test   all tests
# make check  formatting, lint, types and tests
# make results  the main findings once more on smaller populations, under twenty minutes
# make gpu-check  compiles every form of the GPU kernels, without a GPU

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: demo test check results gpu-check lint types clean

# The stamp is older than pyproject.toml after a change of dependencies, and then everything is installed again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,ray,slurm]'
	touch $@

demo: .venv/installed
	$(BIN)/wse generate --config docs/examples/demo.toml --models 1000 --out $(DEMO)/zoo --overwrite
	$(BIN)/wse info $(DEMO)/zoo --curves $(DEMO)/learning-curves.png

# Files side by side, in order: those of few, slow tests come first, and what a file's tests share is made once.
test: .venv/installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: .venv/installed lint types test

results: .venv/installed
	$(BIN)/python benchmarks/findings.py --out $(DEMO)/findings

gpu-check: .venv/installed
	$(BIN)/python -m wse.kernels.triton_check

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Of the scripts in benchmarks/, that what they call is there and takes such arguments.
LOOSE := arg-type assignment dict-item misc no-any-return no-untyped-call no-untyped-def operator untyped-decorator

# The packages are imported as wse.*, but stand at the top of the tree: links show mypy the names they have.
types: .venv/installed
	mkdir -p build/types/wse
	for part in cli engine kernels; do ln -sfn ../../../$$part build/types/wse/$$part; done
	MYPYPATH=build/types $(BIN)/mypy -p wse.cli -p wse.engine -p wse.kernels
	MYPYPATH=build/types $(BIN)/mypy --no-warn-unused-ignores $(addprefix --disable-error-code=,$(LOOSE)) benchmarks

clean:
	rm -rf .venv build dist *.egg-info $(DEMO) .mypy_cache .pytest_cache .ruff_cache .hypothesis
