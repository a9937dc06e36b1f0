# `make` lists the targets. Everything is built below CARGO_TARGET_DIR, ./target if it isn't set.

target := $(abspath $(or $(CARGO_TARGET_DIR),target))
release := $(target)/release
debug := $(target)/debug
binaries := -p coordctl -p coordinator -p worker --bins

.DEFAULT_GOAL := help
.PHONY: fuzz deny oracle oraclepg help deps build driver demo test faults lint fleet bench soak clean

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | \
	  while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

deps: ## Install the Debian packages that building needs
	@scripts/need.sh build

build: deps ## Build coordctl, coordinator and worker
	cargo build --locked --release $(binaries)

driver: build ## Fetch DuckDB's library into ~/.cache/coordctl, once
	@scripts/need.sh driver
	$(release)/coordctl driver add duckdb

demo: ## Build, then plan, change and promote an example project
	@echo 'This builds coordctl (2 to 5 minutes on 2 cores, seconds if it is built), fetches'
	@echo "DuckDB's library (25 MB, once) and tells the story of examples/campaign on a temporary"
	@echo 'copy (less than a minute). Nothing is left behind but the build and the library.'
	@scripts/need.sh build demo
	cargo build --locked -p coordctl
	$(debug)/coordctl driver add duckdb
	@COORDCTL=$(debug)/coordctl examples/campaign/story.sh

test: deps ## Run all tests, with a real etcd, PostgreSQL and DuckDB
	@scripts/need.sh test
	cargo build --locked --workspace --bins --tests
	$(debug)/coordctl driver add duckdb
	cargo test --locked --workspace

faults: deps ## Break everything while plans run, and add up what was survived
	@scripts/need.sh test
	cargo build --locked --workspace --bins --tests
	$(debug)/coordctl driver add duckdb
	@scripts/faults.sh

soak: deps ## Simulate fleets for as long as told: make soak SECONDS=600
	SIM_SECONDS=$(or $(SECONDS),600) cargo test --locked -p coord-tests --test sim soak -- --nocapture

oracle: deps ## Compare with recordings of SQLMesh (ORACLE=<folder>)
	@test -f "$(ORACLE)/compare.py" || { echo "ORACLE=<folder> must name a folder with compare.py and cases"; exit 1; }
	cargo build --locked -p coordctl
	$(debug)/coordctl driver add duckdb
	@failed=0; \
	ORACLE_CASES="$(abspath $(ORACLE))/cases" cargo test --locked --no-fail-fast -p coord-common \
	  --test plan --test intervals --test sql_lineage -- --nocapture as_in_sqlmesh || failed=1; \
	scripts/oracle.py "$(abspath $(ORACLE))" "$(debug)/coordctl" $(ORACLE_ARGS) || failed=1; \
	exit $$failed

oraclepg: deps ## The same on a real PostgreSQL: make oraclepg ORACLE=<folder with cases>
	@test -d "$(ORACLE)/cases" || { echo "ORACLE=<folder> must name a folder with cases"; exit 1; }
	@scripts/need.sh test
	cargo build --locked -p coordctl
	$(debug)/coordctl driver add duckdb
	ORACLE_CASES="$(abspath $(ORACLE))/cases" cargo test --locked -p coord-tests --test oracle postgres -- --nocapture

lint: deps ## Check the format, and clippy without a warning
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fuzz: deps ## Fuzz with coverage: make fuzz [SECONDS=60] [TARGET=name]
	@scripts/fuzz.sh "$(or $(SECONDS),60)" $(TARGET)

deny: ## Check licences, sources and advisories of dependencies with cargo-deny
	@command -v cargo-deny >/dev/null || { \
	  echo 'cargo-deny is NOT installed: only what `make test` checks of deny.toml was checked.'; \
	  echo 'Install it with: cargo install cargo-deny --locked'; exit 0; } && \
	  if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources $(DENY); fi

fleet: build ## A year of flights on etcd, PostgreSQL, a coordinator, four workers
	@scripts/need.sh fleet
	@BIN=$(release) deploy/fleet.sh

bench: build ## Measure the pure core, then the whole system
	@scripts/need.sh test
	$(release)/coordctl driver add duckdb
	cargo bench --locked -p coord-common
	cargo run --locked --release -p coord-tests --bin bench

clean: ## Remove what was built
	cargo clean
