# The list of commands, for people and for CI (`.ci/run` calls only these).
# Everything uses the release profile: DuckDB's C++ is then compiled once.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Loom and Miri set flags of their own; apart from the rest nothing is rebuilt on the way back.
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# What libFuzzer wants woven into the code, as cargo-fuzz asks for it.
fuzz_flags := "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module " + \
    "-Cllvm-args=-sanitizer-coverage-level=4 " + \
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters " + \
    "-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target named, build scripts do without all that.
fuzz_host := arch() + "-unknown-linux-gnu"
# An input that takes this long, or one allocation of this size, is a failure.
fuzz_limits := "-timeout=20 -malloc_limit_mb=64 -rss_limit_mb=1024"
fuzz_seconds := "6"

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

# Both programs, `ringlake` and `perf`, of the build that the tests have: for single packages, or without
# tests, cargo chooses other features and compiles the largest crates once more.
bins:
    cargo build --release --locked --workspace --bins --tests

# Kills, stops and pauses a server under load and looks for lost and doubled events. Ten rounds of a
# fixed seed; `just crash` with arguments of its own for others: `just crash --rounds 200`.
crash *arguments="--rounds 10 --seed 1": bins
    "{{target}}/release/perf" crash {{arguments}}

# Model-checks the ring: every interleaving, where a model does not say otherwise.
loom:
    RUSTFLAGS="--cfg engine_loom" \
        cargo test --release --locked --package ringlake-ring --test 'loom_*' --target-dir "{{target}}/loom"

# All of them, then those with several threads again with eight schedules each, under the other of the
# two aliasing models. Miri's artefacts name the checkout's directory and cargo does not see them age,
# so that two checkouts cannot share them: they stay in the checkout.
[doc("The ring's tests in an interpreter that knows undefined behaviour. Needs a nightly with miri.")]
miri:
    cargo +nightly miri test --locked --package ringlake-ring \
        --target-dir "{{justfile_directory()}}/target/miri"
    MIRIFLAGS="-Zmiri-many-seeds=0..8 -Zmiri-tree-borrows" \
        cargo +nightly miri test --locked --package ringlake-ring --lib \
        --target-dir "{{justfile_directory()}}/target/miri" -- threads linear::what park

# The ring's tests under ThreadSanitizer, with the standard library. Needs a nightly with rust-src.
tsan:
    RUSTFLAGS="-Zsanitizer=thread" \
        cargo +nightly test --release --locked --package ringlake-ring --lib -Zbuild-std \
        --target "$(rustc -vV | awk '/^host/ { print $2 }')" --target-dir "{{target}}/tsan"

# Compiles every bench and runs each case once, without measuring.
bench-smoke:
    cargo test --release --locked --workspace --bench '*'

# Measures; `just bench --bench ring` for one file, `just bench --bench ring -- spsc` for some cases.
# With `-- --save-baseline NAME` the figures are kept, with `-- --baseline NAME` compared with those.
bench *arguments:
    case " {{arguments}}" in *" --bench "*) which=() ;; *) which=(--bench '*') ;; esac; \
    cargo bench --profile release --locked --workspace "${which[@]}" {{arguments}}

# Documentation; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --workspace

# Format and lints of the fuzz targets, which are a workspace of their own.
fuzz-check:
    cargo fmt --manifest-path fuzz/Cargo.toml --check
    RUSTFLAGS="--cfg fuzzing" cargo clippy --release --locked --manifest-path fuzz/Cargo.toml \
        --target-dir "{{target}}/fuzz-check" -- -D warnings

# Builds the fuzz targets with coverage and AddressSanitizer, which takes a nightly and no cargo-fuzz.
fuzz-build:
    RUSTFLAGS="{{fuzz_flags}}" cargo +nightly build --release --locked \
        --manifest-path fuzz/Cargo.toml --target-dir "{{target}}/fuzz" --target {{fuzz_host}}

# What it learns on the way is kept for the next time. Files or directories among the arguments take
# the place of that and of the corpus.
[doc("Fuzzes one target until it fails or its time is over: `just fuzz ring -max_total_time=600`.")]
fuzz name *arguments: fuzz-build
    found="{{target}}/fuzz/found/{{name}}"; mkdir -p "$found"; \
    case " {{arguments}}" in *" "[!-]*) inputs=() ;; *) inputs=("$found" "fuzz/corpus/{{name}}") ;; esac; \
    "{{target}}/fuzz/{{fuzz_host}}/release/{{name}}" {{fuzz_limits}} -artifact_prefix="$found-" \
        $(ls fuzz/dictionaries/{{name}}.dict 2>/dev/null | sed 's/^/-dict=/') \
        {{arguments}} "${inputs[@]}"

# Each fuzz target over its corpus, then some seconds beyond it, from the same seed each time: what
# a check says depends on the change and not on luck. `just fuzz` is for finding new inputs.
fuzz-smoke: fuzz-build
    for source in fuzz/fuzz_targets/*.rs; do \
        name="$(basename "$source" .rs)"; \
        echo "fuzzing $name"; \
        scratch="$(mktemp -d)"; \
        "{{target}}/fuzz/{{fuzz_host}}/release/$name" {{fuzz_limits}} \
            -artifact_prefix="{{target}}/fuzz/$name-" \
            $(ls fuzz/dictionaries/$name.dict 2>/dev/null | sed 's/^/-dict=/') \
            -seed=1 -verbosity=0 -print_final_stats=1 -max_total_time={{fuzz_seconds}} \
            "$scratch" "fuzz/corpus/$name" 2>&1 | grep -v "^stat::\(peak\|slowest\)"; \
        rm -r "$scratch"; \
    done

# Every case of the perf lab, as small as it can be: what it checks must hold, whatever the rates. Those
# beside nginx and ClickHouse's engine need what CI does not install, and `crash` is a step of its own.
perf-smoke: bins
    perf="{{target}}/release/perf"; \
    "$perf" bulk --events 20000 --rounds 1; \
    "$perf" latency --seconds 0.2 --connections 64 --rounds 1; \
    "$perf" fresh --seconds 0.5 --rounds 1; \
    "$perf" hostile --seconds 0.2 --rounds 1; \
    "$perf" keys --seconds 0.2 --rounds 1; \
    "$perf" siege --held 200 --seconds 0.5 --rounds 1; \
    "$perf" ring --megabytes 20 --rounds 1; \
    "$perf" query --millions 0.02 --rounds 1; \
    "$perf" scale --seconds 0.1; \
    "$perf" soak --minutes 0.05; \
    "$perf" replay --megabytes 30; \
    "$perf" report --output "{{target}}/perf-report.html"

# Instructions of decode, ring, shard and log beside those of `perf/instructions.json`; a growth of more
# than 3 % fails. `just instructions --record` writes the file: after a change that is meant to cost
# more, or costs less, and with a new compiler. Needs valgrind.
instructions *arguments: bins
    "{{target}}/release/perf" instructions {{arguments}}

# A case of the perf lab: `just perf bulk`, `just perf single --rounds 5 --save`.
perf *arguments:
    cargo run --release --locked --package perf -- {{arguments}}

# What runs in none of the cases is compiled to be small, so each part of the server runs in one. Begun from
# nothing each time, because cargo does not see a profile change; without a compiler cache DuckDB is built
# twice on the way. `RUSTFLAGS` are taken over: with `-Ctarget-cpu=native` it is for this machine only.
[doc("The fastest binary, `dist/ringlake`: linked as a whole, by a profile of the lab's cases. Half an hour.")]
dist: bins
    profdata="$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | awk '/^host/ { print $2 }')/bin/llvm-profdata"; \
    [[ -x "$profdata" ]] || profdata="$(compgen -c llvm-profdata | sort -V | tail -1 || true)"; \
    [[ "$profdata" ]] || { echo "llvm-profdata is missing: rustup component add llvm-tools" >&2; exit 1; }; \
    profile="{{target}}/profile"; rm -rf "$profile" "{{target}}/dist"; \
    build=(cargo build --profile dist --locked --package ringlake); \
    LLVM_PROFILE_FILE=/dev/null RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$profile" "${build[@]}"; \
    for case in "bulk --alone --rounds 1" "latency --seconds 1 --rounds 1" "fresh --seconds 1 --rounds 1" \
        "query --millions 0.3 --rounds 1" "scale --seconds 0.3" "soak --minutes 0.1" "replay --megabytes 100"; do \
        PERF_LAB_SERVER="{{target}}/dist/ringlake" "{{target}}/release/perf" $case; \
    done; \
    "$profdata" merge --output "$profile/merged.profdata" "$profile"/*.profraw; \
    RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$profile/merged.profdata" "${build[@]}"; \
    echo "{{target}}/dist/ringlake"
