# Everything happens in .venv, in this folder. Targets are relative paths, so the folder's own path may hold spaces.
PYTHON ?= python3
WORKERS ?= 2
INPUTS := pyproject.toml setup.py constraints.txt CMakeLists.txt brainkit/_version.py $(wildcard csrc/*.h csrc/*.cpp)

# Settings of the surrounding shell that would bring other code than this folder's.
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo test test-fast sanitize bench lint clean

help:
	@echo "make demo      train, export, predict and draw on the simulated sample subject (examples/demo.py)"
	@echo "make test      the whole test suite"
	@echo "make test-fast the tests that take little time, for the inner loop"
	@echo "make sanitize  the operator's C++ under AddressSanitizer and ThreadSanitizer"
	@echo "make bench     speeds on this machine, into bench/results/ and the README"
	@echo "make lint      ruff, mypy and clang-format, as pre-commit runs them"
	@echo "make clean     remove .venv, builds, caches and what make demo wrote"

demo: .venv/installed-demo
	.venv/bin/python examples/demo.py

# One thread a worker: two workers share two cores. A file stays on one worker, so that what it trains, it trains once.
test: .venv/installed-test
	OMP_NUM_THREADS=1 MPLBACKEND=Agg .venv/bin/pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-fast: .venv/installed-test
	OMP_NUM_THREADS=1 MPLBACKEND=Agg .venv/bin/pytest -n $(WORKERS) --dist loadfile -m "not slow" -q $(ARGS)

# Every instruction set that the machine has; the others say that they were skipped. AMX, which few have, is emulated.
sanitize: .venv/installed-test
	set -e; for check in address thread; do \
	  .venv/bin/cmake -G Ninja -DCMAKE_MAKE_PROGRAM="$$PWD/.venv/bin/ninja" -S . -B build/$$check \
	    -DCMAKE_BUILD_TYPE=None -DBRAINKIT_SANITIZE=$$check; \
	  .venv/bin/cmake --build build/$$check; \
	  for cpu in portable avx2 avx512; do BRAINKIT_AMX=emulate BRAINKIT_CPU=$$cpu build/$$check/operator_tests; done; \
	done

bench: .venv/installed-test
	.venv/bin/python -m bench.operator $(ARGS)
	.venv/bin/python -m bench.selectors $(ARGS)
	.venv/bin/python -m bench.step $(ARGS)
	.venv/bin/python -m bench.extraction
	.venv/bin/python -m bench.one_minute
	.venv/bin/python -m bench.scoring
	.venv/bin/python -m bench.readme

lint: .venv/installed-test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/pytest -q tests/test_layout.py -k contracts
	.venv/bin/clang-format --dry-run -Werror csrc/*.h csrc/*.cpp csrc/tests/*.cpp

clean:
	rm -rf .venv build dist demo brainkit.egg-info brainkit/_C.*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Editable: changes of Python code take effect at once; a change of one of INPUTS reinstalls.
.venv/installed-demo: .venv/bin/python $(INPUTS)
	.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[train]'
	@touch $@

# All that the demo needs, and more.
.venv/installed-test: .venv/bin/python $(INPUTS)
	.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch .venv/installed-demo $@

# A virtual environment holds its own path, so one that was moved or copied with the folder is rebuilt.
ifneq ($(shell cat .venv/made-in 2>/dev/null),$(shell pwd -P))
.PHONY: .venv/bin/python
endif
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("brainkit: constraints.txt needs Python 3.11 or later; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	@pwd -P > .venv/made-in
