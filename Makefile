# The two commands of the README are `make demo` and `make test`; both work on a fresh machine.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==\([0-9.]*\).*/\1/p' constraints.txt)
TOOLS := $(VENV)/tools
EPOCH = $(shell git log -1 --format=%ct)
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' onnxtool/_version.py)

.NOTPARALLEL: # two pips in one environment would meet
.PHONY: docs demo test test-floors check lint types bench reliability schema lock wheel sbom audit clean

demo: $(VENV)/.demo
	$(VENV)/bin/onnxtool demo --out demo

# At most four workers: each holds torch and TensorFlow in memory. What measures time has the machine for itself.
PYTEST := $(VENV)/bin/pytest --quiet
WORKERS := -n logical --maxprocesses 4 --dist worksteal
test: lint types $(VENV)/.test
	$(PYTEST) $(WORKERS) -m 'not alone'
	$(PYTEST) -m alone

# Lint, types and the tests of the parts that every command shares: no deep-learning framework, hardly a process.
QUICK := bench/test_changes.py bench/test_choice.py bench/test_plan.py bench/test_session.py bench/test_statistics.py \
	converters/test_by_class.py converters/test_choosing.py converters/test_finish.py converters/test_framework.py \
	converters/test_oblivious.py models/test_data.py models/test_inputs.py models/test_pickles.py \
	models/test_signature.py models/test_sklearn.py models/test_stream.py reports/test_environment.py \
	reports/test_gates.py reports/test_golden.py reports/test_json.py reports/test_schema.py reports/test_units.py \
	sandbox/test_confine.py sandbox/test_limits.py validators/test_comparison.py validators/test_feeds.py \
	validators/test_fidelity.py validators/test_labels.py validators/test_parity.py validators/test_significance.py \
	validators/test_tolerance.py validators/test_trial.py test_channel.py test_files.py test_layers.py test_lock.py \
	test_walk.py
check: lint types
	$(PYTEST) $(WORKERS) -m 'not alone' $(addprefix tests/,$(QUICK))

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo

types: $(VENV)/.test
	$(VENV)/bin/mypy

# Ratios measured in one run: the overhead of measuring, of converting, of starting.
bench: $(VENV)/.test
	$(VENV)/bin/pytest benchmarks --benchmark-only

# Damaged files, SIGKILL at every stage, a sweep of 500 cells, faults of the machine, large models: most of an hour.
# What comes of it is in reports/reliability/.
reliability: $(VENV)/.test
	$(VENV)/bin/python -m benchmarks.reliability

# Every test that SECURITY.md names, with the oldest releases that pyproject.toml allows. Where no CPU build of the oldest
# torch is found, it is the locked one.
FLOORS := build/floors
UV_FLOORS := $(TOOLS)/bin/uv pip install --quiet --python $(FLOORS)
test-floors: $(VENV)/.tools
	$(TOOLS)/bin/uv venv --quiet --clear --seed --python $(PYTHON) $(FLOORS)
	grep -E '^(pytest.*|hypothesis|jsonschema|pythonnet|pyyaml|xmlschema)==' constraints.txt >build/floors-tools.txt
	$(TOOLS)/bin/uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --no-annotate --no-emit-package torch \
		pyproject.toml --extra all build/floors-tools.txt -o build/floors.txt
	$(UV_FLOORS) --torch-backend cpu 'torch==$(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)' \
		2>/dev/null || $(FLOORS)/bin/pip install --quiet 'torch==$(TORCH)+cpu'
	$(UV_FLOORS) -r build/floors.txt
	$(UV_FLOORS) --no-deps -e .
	$(FLOORS)/bin/python -m pytest --quiet $(WORKERS) -W default \
		$$(grep -o 'tests/[^`]*' SECURITY.md | grep -v -e test_lock -e test_wheel -e targets | sort -u)

# Files that are generated from the code, and checked by the tests.
schema: $(VENV)/.test
	$(VENV)/bin/python docs/generate_schemas.py
	$(VENV)/bin/python docs/generate_cli.py
	$(VENV)/bin/python docs/generate_mlnet_rules.py

# The documentation site, for a server or to be opened as files: build/site/index.html. A dead link fails it.
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

# Newest versions that pyproject.toml allows; torch is kept at the version whose CPU build the tests know. `make lock UPGRADE=` keeps
# what is pinned and adds what is new. The same versions with hashes are a separate file: one hash in a constraints file,
# and pip requires a hash of all, which `-e .` cannot have. Torch, and the CUDA libraries that come with it, are not in
# it: which build is right depends on the machine.
# tf-keras asks for the package `tensorflow`; where the tests run on `tensorflow-cpu`, it must not come beside it.
UPGRADE := --upgrade
EXTRAS := --extra all --extra test --extra timm --extra keras2
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--custom-compile-command "make lock"
lock: $(VENV)/.tools
	mkdir -p build && echo 'torch==$(TORCH)' >build/held.txt
	$(COMPILE) pyproject.toml $(EXTRAS) --extra gpu --extra openvino $(UPGRADE) -c build/held.txt -o constraints.txt
	$(COMPILE) pyproject.toml $(EXTRAS) --generate-hashes -c constraints.txt -o requirements.lock
	sed -i -E "s/^(tensorflow==[0-9.]+)( .)?$$/\1 ; platform_machine != 'x86_64' or sys_platform != 'linux'\2/" constraints.txt requirements.lock
	sed -i -E '/^(torch|triton|cuda-|nvidia-)/,/[^\\]$$/d' requirements.lock
	printf '%s\n' cyclonedx-bom pip-audit uv | $(COMPILE) - --generate-hashes $(UPGRADE) -o tools.lock

# Tools of a release, in a separate environment from the one that is tested.
$(VENV)/.tools: tools.lock
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: -r tools.lock
	touch $@

# What onnxtool[all] depends on, on every platform, as CycloneDX; the tool checks it against the standard's schema.
sbom: $(VENV)/.tools
	mkdir -p build dist
	$(COMPILE) pyproject.toml --extra all --generate-hashes --no-header -c constraints.txt -o build/sbom.txt
	sed 's/^dynamic = .*/version = "$(VERSION)"/' pyproject.toml >build/sbom.toml
	SOURCE_DATE_EPOCH=$(EPOCH) $(TOOLS)/bin/cyclonedx-py requirements build/sbom.txt --pyproject build/sbom.toml \
		--mc-type library --output-reproducible --validate -o dist/onnxtool.cdx.json

# Known vulnerabilities of the pinned versions. A package that was not looked up is no pass: pip-audit writes its
# answer only if it looked up all of them. `make audit SERVICE=osv` queries another database.
SERVICE := pypi
audit: $(VENV)/.tools
	mkdir -p build && rm -f build/audit.json
	$(TOOLS)/bin/pip-audit --strict --vulnerability-service $(SERVICE) --progress-spinner off --no-deps --disable-pip \
		-r constraints.txt -f json -o build/audit.json 2>build/audit.log; status=$$?; \
	tail -n 1 build/audit.log; \
	if ! test -s build/audit.json; then \
		echo 'NOT AUDITED: the database of vulnerabilities gave no answer. Nothing is known about these versions.'; exit 3; \
	elif test $$status -ne 0; then echo 'VULNERABLE: see build/audit.json.'; exit 1; fi

# What is released, of the last commit alone and byte for byte the same wherever it is built: the commit's time stands
# for the build's, and modes do not follow the umask. Setuptools heeds the time in a wheel only, hence the sdist's tar.
wheel: $(VENV)/.test
	rm -rf build/release dist/onnxtool-* && mkdir -p build/release/source dist
	git -c tar.umask=0022 archive HEAD | tar -x -C build/release/source
	umask 022 && SOURCE_DATE_EPOCH=$(EPOCH) $(VENV)/bin/python -m build --no-isolation --outdir build/release \
		build/release/source >build/release/log 2>&1 || { cat build/release/log; exit 1; }
	cd build/release && tar -xzf onnxtool-*.tar.gz && rm onnxtool-*.tar.gz && for sdist in onnxtool-*[0-9]; do \
		tar -c --sort=name --format=ustar --mtime=@$(EPOCH) --owner=0 --group=0 --numeric-owner "$$sdist" \
			| gzip -9 -n >"$$sdist.tar.gz"; done
	mv build/release/onnxtool-*.whl build/release/onnxtool-*.tar.gz dist
	rm -rf build/release

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) install --quiet -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.locked $(VENV)/.torch
	$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[all,test]'
	touch $@ $(VENV)/.demo

# Before torch, so that what torch needs is checked too. Wheels only: a build from source would fetch unlocked tools.
$(VENV)/.locked: requirements.lock
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --no-deps --only-binary :all: -r requirements.lock
	touch $@

# Where there is no GPU, torch's CPU build is taken, which is 10 times smaller: from pip's configured index or
# wheel folder if they have it, else from PyTorch's own index, which uv knows. With a GPU, pip's choice is right.
$(VENV)/.torch: constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	command -v nvidia-smi >/dev/null 2>&1 \
		|| $(PIP) install --quiet -c constraints.txt 'torch==$(TORCH)+cpu' 2>/dev/null \
		|| { sed -n '/^uv==/,/[^\\]$$/p' tools.lock >$(VENV)/uv.txt && $(PIP) install --quiet --require-hashes -r $(VENV)/uv.txt \
			&& $(VENV)/bin/uv pip install --quiet --python $(VENV) --torch-backend cpu -c constraints.txt 'torch==$(TORCH)'; } \
		|| echo 'No CPU build of torch $(TORCH) found: pip will take the default build.'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
