#!/usr/bin/env bash
# Tests of ./dev on machines that lack things: each runs it with a PATH of its own, where apt-get,
# curl, rustup and cargo are recorders that write down how they were called.
set -euo pipefail

dev="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/dev"
bash_path="$(command -v bash)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# What a minimal Debian or Ubuntu always has, and git.
always=(awk bash basename cat chmod cp cut dirname env find git grep head id ln ls mkdir mktemp mv
    rm sed sh sort tail tee tr uname)

# --- the machine under test -----------------------------------------------------------------------

# A new machine: nothing but the above, and apt-get and curl that work. $machine is its folder.
new_machine() {
    machine="$(mktemp -d "$work/machine.XXXXXX")"
    mkdir -p "$machine/bin" "$machine/home" "$machine/repo/testnet/tests"
    local tool
    for tool in "${always[@]}"; do ln -s "$(command -v "$tool")" "$machine/bin/$tool"; done
    cp "$dev" "$machine/repo/dev"
    printf '[workspace]\n' >"$machine/repo/Cargo.toml"
    printf '[toolchain]\nchannel = "1.95.0"\n' >"$machine/repo/rust-toolchain.toml"
    # The inner run must not start this file again.
    echo 'echo "1 passed, 0 failed"' >"$machine/repo/testnet/tests/dev_script.sh"
    : >"$machine/calls"
    user 0
    provide apt-get "case \"\$*\" in *install*gcc*) cp '$machine/cc' '$machine/bin/cc' ;; esac"
    provide curl "echo 'mkdir -p \$HOME/.cargo/bin && cp $machine/rustup-files/* \$HOME/.cargo/bin/'"
    # Installed by the two above.
    # shellcheck disable=SC2016
    tool_file "$machine/cc" 'out=; while [ $# -gt 0 ]; do [ "$1" = -o ] && out="$2"; shift; done; cat >/dev/null; : >"$out"'
    mkdir -p "$machine/rustup-files"
    tool_file "$machine/rustup-files/rustup" "$rustup_body"
    tool_file "$machine/rustup-files/cargo" "$cargo_body"
}

# The single quotes are meant: these are bodies of scripts, expanded when those run.
# shellcheck disable=SC2016
rustup_body='case "$*" in
    "toolchain install"*) [ ! -e "$MACHINE/offline" ] || exit 1; : >"$MACHINE/toolchain" ;;
    "toolchain list") cat "$MACHINE/toolchains" 2>/dev/null || true ;;
    "run 1.95.0 rustc --version") [ -e "$MACHINE/toolchain" ] && echo "rustc 1.95.0 (x)" ;;
    "run "*) echo "rustc ${2%%-*} (x)" ;;
esac'
# shellcheck disable=SC2016
cargo_body='echo "toolchain: ${RUSTUP_TOOLCHAIN:-pinned}" >>"$MACHINE/calls"
case "$*" in
    "install cargo-nextest"*)
        [ ! -e "$MACHINE/offline" ] || exit 101
        echo "exit 0" >"$MACHINE/bin/cargo-nextest"; chmod +x "$MACHINE/bin/cargo-nextest" ;;
    "nextest run"*)
        if [ -e "$MACHINE/red" ]; then
            echo "     Summary [   0.1s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped"
            exit 100
        fi
        echo "     Summary [   0.1s] 5 tests run: 5 passed, 0 skipped" ;;
    "run --quiet --locked --package comity-fuzz"*) echo event ;;
    "test --doc"*) echo "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured" ;;
    "test "*) echo "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured" ;;
    "build --release"*)
        [ ! -e "$MACHINE/no-build" ] || exit 101
        mkdir -p target/release
        printf "%s\n" "#!/bin/sh" "echo testnet \$* >>$MACHINE/calls" \
            "[ \"\$1\" != --help ] || printf \"  up  x\\n\"" \
            "[ \"\$1\" != --help ] || cat $MACHINE/more-help 2>/dev/null" \
            "[ \"\$1\" != prove ] || [ ! -e $MACHINE/false-claim ] || exit 1" \
            >target/release/comity-testnet
        chmod +x target/release/comity-testnet ;;
esac'

# A tool that writes down its call and then does $2 (shell).
tool_file() {
    printf '#!/bin/sh\necho "%s $*" >>"%s/calls"\n%s\n' "$(basename "$1")" "$machine" "${2:-}" >"$1"
    chmod +x "$1"
}
provide() { tool_file "$machine/bin/$1" "${2:-}"; }
user() {
    rm -f "$machine/bin/id"
    printf '#!/bin/sh\necho %s\n' "$1" >"$machine/bin/id"
    chmod +x "$machine/bin/id"
}

# A machine that has everything.
equip() {
    cp "$machine/cc" "$machine/bin/cc"
    cp "$machine/rustup-files/"* "$machine/bin/"
    : >"$machine/toolchain"
    provide cargo-nextest
    provide ip
    provide nft
}

# Runs ./dev on the machine; its output goes to $machine/out, its exit code to $status.
run_dev() {
    status=0
    env -i PATH="$machine/bin" HOME="$machine/home" MACHINE="$machine" \
        "$bash_path" "$machine/repo/dev" "$@" >"$machine/out" 2>&1 </dev/null || status=$?
}

# --- claims ---------------------------------------------------------------------------------------

check() {
    local claim="$1"
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n  (%s)\n' "$claim" "$*"
        sed 's/^/  output: /' "$machine/out"
        sed 's/^/  called: /' "$machine/calls"
    fi
}
called() { grep -qE -- "^$1" "$machine/calls"; }
not_called() { ! called "$1"; }
said() { grep -qE -- "$1" "$machine/out"; }
exited() { [[ $status -eq $1 ]]; }
last_line_is() { [[ "$(tail -n 1 "$machine/out")" == "$1" ]]; }
said_lines() { [[ "$(grep -c '' "$machine/out")" -eq $1 ]]; }

new_machine
run_dev up --servers 3
check "a new machine, as root: up succeeds" exited 0
check "a new machine, as root: lists are fetched first" called 'apt-get update'
check "a new machine, as root: the compiler is installed" \
    called 'apt-get install -y .*gcc libc6-dev'
check "a new machine: rustup comes from its own site" called 'curl .*https://sh.rustup.rs'
check "a new machine: the pinned toolchain is installed" \
    called 'rustup toolchain install 1.95.0 .*clippy .*rustfmt'
check "up builds the network in release" \
    called 'cargo build --release --locked -p comity-testnet -p comity-chat -p comity-node'
check "up hands its arguments on" called 'testnet up --servers 3'
check "up needs no test runner" not_called 'cargo install'
: >"$machine/calls"
run_dev up
check "the second run finds all in place" exited 0
check "the second run installs nothing" not_called '(apt-get|curl|rustup toolchain install)'

new_machine
run_dev test
check "a new machine, as root: test succeeds" exited 0
check "the test runner is installed in a pinned version" \
    called 'cargo install cargo-nextest --locked --version [0-9]'
check "what gives servers networks of their own is installed" \
    called 'apt-get install -y .*iproute2 nftables'
check "units run" called 'cargo nextest run .*--workspace --locked'
check "examples in the docs run" called 'cargo test --doc --workspace --locked'
check "a testnet without prove is said, not failed" said 'has no .prove.'
# 5 units, 2 examples, 6 rules, 1 self-test, 1 claims phase.
check "the last line adds up" last_line_is "15 passed, 0 failed"

new_machine
user 1000
for command in up test lint bench; do
    run_dev "$command"
    check "as a user without rights: $command stops" exited 1
    check "as a user without rights: $command names the packages" said 'apt-get install -y gcc libc6-dev'
    check "as a user without rights: $command says it in one line" said_lines 1
done
check "as a user without rights: nothing is installed" not_called '(apt-get|curl|cargo)'

new_machine
rm "$machine/bin/apt-get" "$machine/bin/curl"
run_dev up
check "no Debian: stops" exited 1
check "no Debian: names the packages" said 'gcc libc6-dev curl'

new_machine
provide apt-get 'exit 100'
run_dev up
check "apt-get fails: stops" exited 1
check "apt-get fails: goes no further" not_called 'curl'

new_machine
tool_file "$machine/bin/cc" "[ -e '$machine/headers' ]"
provide apt-get ": >'$machine/headers'"
run_dev up
check "a compiler without headers: they are installed" called 'apt-get install .*recommends libc6-dev$'

new_machine
equip
run_dev test
check "an equipped machine: test succeeds" exited 0
check "an equipped machine: nothing is installed" \
    not_called '(apt-get|curl|rustup toolchain install|cargo install)'

new_machine
equip
rm "$machine/bin/nft"
provide apt-get 'exit 100'
run_dev test
check "no nftables to be had: the other tests run" exited 0
check "no nftables to be had: it is said" said 'nftables could not be installed'
user 1000
: >"$machine/calls"
run_dev test
check "no nftables, no rights: the other tests run" exited 0
check "no nftables, no rights: nothing is tried" not_called 'apt-get'

new_machine
equip
: >"$machine/red"
run_dev test
check "failed tests: exit code" exited 1
check "failed and timed out tests are counted" last_line_is "12 passed, 2 failed"
check "failed tests: no claim is tried" not_called 'cargo build'

new_machine
equip
printf '  prove  x\n' >"$machine/more-help"
run_dev test
check "claims are tried" called 'testnet prove all --quick'
check "claims are tried broken" called 'testnet prove --self-test --quick'
check "claims hold" exited 0
: >"$machine/false-claim"
run_dev test
check "a claim that does not hold fails the run" exited 1
check "a claim that does not hold is counted" last_line_is "14 passed, 1 failed"
rm "$machine/false-claim"
: >"$machine/no-build"
run_dev test
check "a network that does not build fails the run" exited 1

new_machine
equip
run_dev test -p comity-protocol
check "test with arguments runs those only" called 'cargo nextest run .*--locked -p comity-protocol'
check "test with arguments runs no other phase" not_called 'cargo (test|build)'

new_machine
equip
run_dev fuzz
check "fuzz without a C++ compiler stops" exited 1
check "fuzz without a C++ compiler names the package" said 'g\+\+'
provide c++
run_dev fuzz --seconds soon
check "fuzz takes a number of seconds" said 'needs a number'
run_dev fuzz nothing
check "fuzz knows its targets" said 'there is no target "nothing"'
check "fuzz builds nothing for an unknown target" not_called 'cargo build'

new_machine
equip
rm "$machine/bin/cargo-nextest"
: >"$machine/offline"
run_dev test
check "no test runner to be had: cargo test runs" called 'cargo test .*--lib --bins --tests --workspace'
check "no test runner to be had: it is said" said 'running cargo test'
check "no test runner to be had: its tests count" last_line_is "14 passed, 0 failed"

new_machine
equip
rm "$machine/toolchain"
: >"$machine/offline"
printf '1.80.0-x86_64-unknown-linux-gnu (default)\n1.96.1-x86_64-unknown-linux-gnu\n' \
    >"$machine/toolchains"
run_dev up
check "pinned Rust not to be had: a newer toolchain serves" \
    called 'toolchain: 1.96.1-x86_64-unknown-linux-gnu'
check "pinned Rust not to be had: it is said" said 'using 1.96.1'
printf '1.80.0-x86_64-unknown-linux-gnu (default)\n' >"$machine/toolchains"
run_dev up
check "only an older Rust: stops" exited 1
check "only an older Rust: it is said" said 'Rust 1.95.0 could not be installed'

new_machine
cp "$machine/cc" "$machine/bin/cc"
tool_file "$machine/bin/cargo" "$cargo_body"
provide rustc 'echo "rustc 1.97.0 (x)"'
run_dev up
check "Rust without rustup, new enough: used as it is" not_called '(curl|apt-get)'
check "Rust without rustup, new enough: it is said" said 'using the Rust 1.97.0'
provide rustc 'echo "rustc 1.63.0 (x)"'
run_dev up
check "Rust without rustup, too old: rustup is installed beside it" called 'curl'

new_machine
run_dev frobnicate
check "an unknown command: exit code 2" exited 2
check "an unknown command: help is shown" said 'Usage: ./dev COMMAND'
run_dev
check "no command: help is shown, nothing is installed" said 'Usage: ./dev COMMAND'
check "no command: nothing is installed" not_called '.'

# --- each rule of the architecture catches what breaks it -----------------------------------------

# Writes the line $3 to the file $2 of a tree, and checks that the rule $1 names it.
breaks() {
    rm -rf "$machine/tree"
    mkdir -p "$machine/tree/$(dirname "$2")"
    printf '[workspace]\n' >"$machine/tree/Cargo.toml"
    printf '%s\n' "$3" >"$machine/tree/$2"
    run_dev architecture "$machine/tree"
    check "$2 with \"$3\" breaks $1" said "broken rule $1:"
    check "$2 with \"$3\" fails" exited 1
}
keeps() {
    rm -rf "$machine/tree"
    mkdir -p "$machine/tree/$(dirname "$1")"
    printf '[workspace]\n' >"$machine/tree/Cargo.toml"
    printf '%s\n' "$2" >"$machine/tree/$1"
    run_dev architecture "$machine/tree"
    check "$1 with \"$2\" breaks nothing" exited 0
}
slash=/ # so that this file keeps the rule it tests
breaks automerge_stays_in_document protocol/src/history.rs 'let d = automerge::AutoCommit::new();'
breaks automerge_stays_in_document node/src/x.rs 'use automerge as a;'
breaks automerge_stays_in_document node/Cargo.toml 'automerge.workspace = true'
keeps protocol/src/document/cache.rs 'use automerge::AutoCommit;'
keeps node/src/x.rs '// automerge::AutoCommit is never seen here.'
breaks sled_stays_in_storage node/src/x.rs 'fn f(db: sled::Db) {}'
breaks sled_stays_in_storage node/Cargo.toml 'sled = "1"'
keeps node/storage/src/index/sled.rs 'use sled::Db;'
breaks core_has_no_edges protocol/Cargo.toml 'tokio.workspace = true'
breaks core_has_no_edges protocol/Cargo.toml 'comity-storage = { path = "../node/storage" }'
breaks node_and_sdk_are_strangers node/Cargo.toml 'comity-sdk.workspace = true'
breaks node_and_sdk_are_strangers client-sdk/chat/Cargo.toml 'comity-node.workspace = true'
breaks no_unwrap client-sdk/src/lib.rs 'let x = y.unwrap();'
breaks no_unwrap node/src/x.rs $'#[cfg(test)]\nmod tests;\nfn f() { y.unwrap(); }'
keeps node/src/x/tests.rs 'let x = y.unwrap();'
keeps protocol/src/x.rs '#[cfg(test)] mod tests { fn f() { y.unwrap(); } }'
# A module for tests only, whatever its name.
mkdir -p "$machine/tree/node/src/store"
printf '[workspace]\n' >"$machine/tree/Cargo.toml"
printf '#[cfg(test)]\nmod conformance;\n' >"$machine/tree/node/src/store.rs"
echo 'fn f() { y.unwrap(); }' >"$machine/tree/node/src/store/conformance.rs"
run_dev architecture "$machine/tree"
check "a module for tests only may unwrap" exited 0
echo 'fn f() { y.unwrap(); }' >"$machine/tree/node/src/store/other.rs"
run_dev architecture "$machine/tree"
check "its neighbour may not" said 'store/other.rs:1'
breaks no_machine_paths node/src/x.rs "let p = \"${slash}work/main\";"
breaks no_machine_paths README.md "see (${slash}home/alice/notes)"
keeps node/src/x.rs 'route("/v1/root/{id}")'

printf '%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]
