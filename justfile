# The list of commands, for people and for CI (`.ci/run` calls only these).
# Everything uses the release profile: DuckDB's C++ is then compiled once.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Loom and Miri set flags of their own; apart from the rest nothing is rebuilt on the way back.
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# What a change must pass before it is shown to anybody.
default: check

# Format, lints, tests, documentation.
check: fmt clippy test doc

# Formatting, without changing anything.
fmt:
    cargo fmt --all --check

# Lints; a warning is an error.
clippy:
    cargo clippy --release --locked --workspace --all-targets -- -D warnings

# The README's test command, read from there so that the two cannot drift apart.
test:
    command="$(awk '/^```/ { fence++; next } fence == 1 && NF' README.md | sed -n 2p)"; \
    [[ "$command" == "cargo test "* ]] || { echo "README.md: the second command is no test: $command" >&2; exit 1; }; \
    echo "$command"; \
    eval "$command"

# Kills, stops and pauses a server under load and looks for lost and doubled events. Ten rounds of a
# fixed seed; `just crash` with arguments of its own for others: `just crash --rounds 200`.
crash *arguments="--rounds 10 --seed 1":
    cargo run --release --locked --package perf -- crash {{arguments}}

# Model-checks the ring: every interleaving, where a model does not say otherwise.
loom:
    RUSTFLAGS="--cfg engine_loom" \
        cargo test --release --locked --package ringlake-ring --test 'loom_*' --target-dir "{{target}}/loom"

# The ring's tests in an interpreter that knows undefined behaviour. Needs a nightly with miri.
# Its artefacts name the checkout's directory and cargo does not see them age, so that two checkouts
# cannot share them: they stay in the checkout.
miri:
    cargo +nightly miri test --locked --package ringlake-ring \
        --target-dir "{{justfile_directory()}}/target/miri"

# Compiles every bench and runs each case once, without measuring.
bench-smoke:
    cargo test --release --locked --package ringlake-benches --benches

# Measures; `just bench --bench ring` for one file, `just bench --bench ring -- spsc` for some cases.
bench *arguments:
    cargo bench --profile release --locked --package ringlake-benches {{arguments}}

# Documentation; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --workspace

# Compiles the fuzz targets. Needs a nightly.
fuzz-check:
    cargo +nightly check --manifest-path fuzz/Cargo.toml --target-dir "{{target}}/fuzz"

# Runs each fuzz target for a minute. Needs a nightly and cargo-fuzz.
fuzz-smoke:
    for name in $(cd fuzz && cargo +nightly fuzz list); do \
        echo "$name"; \
        (cd fuzz && cargo +nightly fuzz run "$name" -- -max_total_time=60); \
    done

# A case of the perf lab: `just perf bulk`, `just perf single --rounds 5 --save`.
perf *arguments:
    cargo run --release --locked --package perf -- {{arguments}}
