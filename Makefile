# One word per habit. CI runs the same words.

.DEFAULT_GOAL := help
WHO ?= ann

.PHONY: help run chat certificate test lint fmt doc bench sim fuzz audit image release clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

# A debug build: its first one takes about four minutes on two cores, a release build more than ten.
run: ## build and start a complete server, no configuration; ARGS="--listen 0.0.0.0:3000" adds options
	@echo "Building imks (debug; the first build takes some minutes; 'make release' makes the fast one) ..."
	@cargo run -- $(ARGS)

chat: ## chat with that server on the terminal; WHO=ben is somebody else, ARGS="--channel general" adds options
	@cargo build --quiet
	@token="$$(target/debug/imks token $(WHO))" && IMKS_TOKEN="$$token" target/debug/imks chat http://127.0.0.1:3000 $(ARGS)

certificate: ## a certificate for development in ./certs; ARGS="--name chat.test" adds options
	@cargo run --quiet -- certificate $(ARGS)

test: ## install or start what is missing, then run every check and every test
	@tests/run

# What can be built by itself; without `testing` the compiler finds what nobody uses.
FEATURE_SETS := wire client client-quic socketio admin server full

lint: ## format, the contract, clippy for every feature set, cargo-deny where installed
	cargo fmt --check
	proto/check
	cargo clippy --all-targets -- -D warnings
	@for features in $(FEATURE_SETS); do \
		echo "cargo clippy --lib --bins --no-default-features --features $$features"; \
		cargo clippy --quiet --lib --bins --no-default-features --features $$features -- -D warnings || exit 1; \
	done
	@if cargo deny --version >/dev/null 2>&1; then \
		echo "cargo deny check bans licenses sources"; cargo deny --log-level error check bans licenses sources; \
	else \
		echo "cargo-deny is not installed, left out (cargo install --locked cargo-deny)"; \
	fi

fmt: ## format
	cargo fmt

doc: ## the library's documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --quiet

bench: ## imks beside its peers, and the persisted path; writes target/bench-report.md (about 20 minutes)
	@benches/run $(ARGS)

# Both tests go through all seeds. A seed that fails belongs into src/socket/tests/sim/seeds.txt, which `make test` replays.
sim: ## simulated clusters that fail in every way, 2000 seeds of both kinds; SEEDS=10000 for more, SEEDS=17..18 for one
	@SEEDS=$(or $(SEEDS),2000) cargo test --quiet --lib socket::tests::sim:: -- --nocapture

fuzz: ## every fuzz target for a minute, SECONDS=600 for ten; installs cargo-fuzz where missing
	@fuzz/run $(SECONDS)

audit: ## known vulnerabilities (needs cargo-deny and the network)
	cargo deny check advisories

# What `imks version` says.
BUILD = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) ($(shell git rev-parse --short HEAD) $(shell date -u +%Y-%m-%d))

release: ## target/release/imks
	IMKS_BUILD="$(BUILD)" cargo build --release --bin imks

image: ## the container image
	docker build -t imks --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) \
		--build-arg BUILD="$(BUILD)" --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) .

clean: ## everything built
	cargo clean
