.PHONY: dev test compat suites consistency soak bench compose-test fmt lint postgresql poolers drivers trial crashes
.PHONY: differential

# A sharded, replicated PostgreSQL with the shop in it, behind the proxy: make dev ARGS="--rows 1000 --fresh"
dev: postgresql
	cargo run --release -- dev $(ARGS)

# Everything CI runs.
test: postgresql drivers suites
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test

# What the proxy costs, beside PgBouncer and Pgpool-II: make bench ARGS="--rounds 5 --html /tmp/bench.html"
bench: postgresql poolers
	cargo build --release
	python3 benches/run.py $(ARGS)

# Clients' own test suites and programs for clients without one, directly and through pgweir, as a table; the applications
# by object-relational mappers on two shards. About an hour: make compat ARGS="--only psycopg2"; --short is in `make test`.
compat: postgresql suites
	cargo build --release
	python3 tests/compat/run.py --pgweir target/release/pgweir $(ARGS)

# What the short form needs, into .compat: from Debian's, Python's and Node's registries by their own clients.
suites: postgresql
	@python3 -c 'import os, sysconfig, venv; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || $(MAKE) --no-print-directory install PACKAGES="python3 python3-venv python3-dev"
	@{ command -v node && command -v npm; } >/dev/null 2>&1 \
	  || $(MAKE) --no-print-directory install PACKAGES="nodejs npm"
	@{ command -v cc && command -v perl && [ -e "$$(pg_config --includedir)/libpq-fe.h" ]; } >/dev/null 2>&1 \
	  || $(MAKE) --no-print-directory install PACKAGES="gcc libc6-dev perl libpq-dev"
	@command -v javac >/dev/null 2>&1 || $(MAKE) --no-print-directory install PACKAGES=default-jdk-headless
	python3 tests/compat/run.py --short --get

# The containers of docker-compose.yml: needs docker, compose and psql.
compose-test:
	python3 tests/compose.py

# The long forms of two trials: 10,000 reads after writes behind late replicas; five minutes of faults.
consistency: postgresql
	PGWEIR_TRIALS=10000 cargo test --test consistency -- --nocapture

soak: postgresql
	PGWEIR_SOAK_SECONDS=300 cargo test --test faults soak -- --nocapture

# 500 clients on 5 connections, with state of every kind.
trial: postgresql
	PGWEIR_TRIAL_SECONDS=600 cargo test --test pooling no_state_is_ever -- --nocapture

# Statements and transactions put together at random, asked of two shards and of one PostgreSQL with all rows: equal
# answers or a refusal, any difference made small and printed. Another run: make differential SEED=2 SECONDS=600
SEED = 1
SECONDS = 300
differential: postgresql
	PGWEIR_SEED=$(SEED) PGWEIR_DIFFERENTIAL_SECONDS=$(SECONDS) cargo test --test sharded answers_are_those -- --nocapture

# Whoever dies at each step of a commit on several shards, 20 times each; a bank over shards for ten minutes.
crashes: postgresql
	PGWEIR_CRASHES=20 cargo test --test crashes -- --nocapture
	PGWEIR_BANK_SECONDS=600 cargo test --test consistent bank -- --nocapture

fmt:
	cargo fmt

lint:
	cargo clippy --all-targets -- -D warnings

# Debian's PostgreSQL, where no server programs are found in the places that `pgweir dev` looks in.
postgresql:
	@command -v postgres >/dev/null 2>&1 \
	  || [ -x "$$(pg_config --bindir 2>/dev/null)/postgres" ] \
	  || ls /usr/lib/postgresql/*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
	        /usr/local/opt/postgresql*/bin/postgres 2>/dev/null | grep -q . \
	  || $(MAKE) --no-print-directory install PACKAGES="postgresql postgresql-client"
	@command -v psql >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/psql >/dev/null 2>&1 \
	  || $(MAKE) --no-print-directory install PACKAGES=postgresql-client

# The two that pgweir is compared with. The bench starts its own: what their packages start is stopped again.
poolers:
	@for pair in pgbouncer:pgbouncer pgpool:pgpool2; do \
	  program=$${pair%:*}; package=$${pair#*:}; \
	  if ! command -v $$program >/dev/null 2>&1 && ! [ -x /usr/sbin/$$program ]; then \
	    $(MAKE) --no-print-directory install PACKAGES=$$package || exit 1; \
	    $(SUDO) service $$package stop >/dev/null 2>&1 || true; \
	  fi; \
	done

# What the trials through drivers need: .drivers/venv with psycopg and asyncpg, .drivers/node_modules with pg.
DRIVERS_PYTHON = psycopg[binary,pool]>=3.2 asyncpg>=0.30
DRIVERS_NODE = pg@8

drivers: .drivers/python .drivers/node

.drivers/python: Makefile
	@python3 -c 'import ensurepip, venv' 2>/dev/null \
	  || $(MAKE) --no-print-directory install PACKAGES="python3 python3-venv"
	python3 -m venv .drivers/venv
	.drivers/venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check $(patsubst %,'%',$(DRIVERS_PYTHON))
	@touch $@

.drivers/node: Makefile
	@{ command -v node && command -v npm; } >/dev/null 2>&1 \
	  || $(MAKE) --no-print-directory install PACKAGES="nodejs npm"
	@mkdir -p .drivers
	npm install --prefix .drivers --silent --no-save --no-package-lock $(DRIVERS_NODE)
	@touch $@

# Without a question, as root or by sudo.
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)

.PHONY: install
install:
	@command -v apt-get >/dev/null 2>&1 || { echo "Please install $(PACKAGES) with your system's package manager." >&2; exit 1; }
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(PACKAGES)
