.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
COMPOSE := docker compose --file docker/compose.yaml

# Every environment is made of the versions in requirements.lock; so are the tools that build a package on the way
# (pip reads the second variable for those from version 25.3 on, and the first one before).
LOCKED := PIP_CONSTRAINT=requirements.lock PIP_BUILD_CONSTRAINT=requirements.lock
PIP_INSTALL := pip install --quiet --disable-pip-version-check
# Three workers for two cores: some of the tests wait for Milvus. In the order of the files, so that the longest start early.
PYTEST := pytest -n 3 --dist loadscope -p no:randomly

.PHONY: help install demo test test-all test-newest test-lowest test-ray test-towhee lint lock bench up down logs clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## Make .venv and install lookalike into it

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("lookalike needs Python 3.11 or later, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(LOCKED) $(BIN)/$(PIP_INSTALL) --editable '.[dev]'
	touch $@

demo: install ## Draw a catalogue, ingest it, ask it three questions
	rm -rf demo && mkdir demo
	$(BIN)/lookalike sample demo
	$(BIN)/lookalike ingest demo/photos --layout '{category}/{product_id}/{image}' --uri demo/lookalike.db
	@echo; echo "1. A photo that is not in the catalogue"
	$(BIN)/lookalike search demo/queries/red-plain-mug.jpg --uri demo/lookalike.db --limit 5 --sheet demo/answers.png
	@echo; echo "2. The same, among bags only"
	$(BIN)/lookalike search demo/queries/red-plain-mug.jpg --where 'category = bag' --uri demo/lookalike.db --limit 5
	@echo; echo "3. More like this product"
	$(BIN)/lookalike search --product blue-checked-shirt --uri demo/lookalike.db --limit 5

test: install ## Run the tests, on Milvus Lite and on a real server: some minutes
	$(BIN)/$(PYTEST)

test-all: install ## Run the slow tests too
	$(BIN)/$(PYTEST) -m ""

test-newest: ## Run the tests with the newest versions that pyproject.toml allows
	rm -rf .venv-newest && $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/$(PIP_INSTALL) --editable '.[dev]'
	.venv-newest/bin/$(PYTEST)

test-lowest: install ## Run the tests with the lowest versions that pyproject.toml allows
	rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct --extra dev \
		--python .venv-lowest/bin/python --output-file .venv-lowest/lowest.txt pyproject.toml
	PIP_CONSTRAINT=.venv-lowest/lowest.txt .venv-lowest/bin/$(PIP_INSTALL) --editable '.[dev]'
	.venv-lowest/bin/$(PYTEST)

test-ray: .venv-ray/installed ## Run the tests of ingest on Ray, in an environment of their own
	.venv-ray/bin/pytest tests/ingest/test_ray.py

test-towhee: .venv-towhee/installed ## Run the tests with Towhee, in an environment of their own
	.venv-towhee/bin/pytest tests/encode/test_towhee.py

.venv-%/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv-$*
	$(LOCKED) .venv-$*/bin/$(PIP_INSTALL) --editable '.[dev,$*]'
	touch $@

lint: install ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without the CUDA libraries: a CPU build of torch wants none, and each other build names its own.
lock: install ## Renew requirements.lock: the newest versions that pyproject.toml allows
	echo '# Made by `make lock`: every version that an environment of this project is made of.' > requirements.tmp
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
		pyproject.toml | grep -v -E '^(cuda|nvidia|triton)' >> requirements.tmp
	mv requirements.tmp requirements.lock

bench: install ## Measure the ingest pipeline against the loop that everyone writes
	$(BIN)/python benchmarks/ingest.py

up: docker/.env ## Start service, worker and Milvus with Docker Compose
	$(COMPOSE) up --build --detach
	@echo "Answers at http://localhost:8000, or the API_PORT of docker/.env, where its keys are too"

down: docker/.env ## Stop them; what they have stored stays
	$(COMPOSE) --profile '*' down

logs: docker/.env ## Follow what they say
	$(COMPOSE) --profile '*' logs --follow

docker/.env:
	umask 077 && $(PYTHON) -c 'import re, secrets; print(re.sub("CHANGE_ME", lambda _: secrets.token_hex(16), open("docker/.env.example").read()), end="")' > $@

clean: ## Remove what was made, the environments too
	rm -rf .venv .venv-ray .venv-towhee demo build *.egg-info
