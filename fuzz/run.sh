#!/usr/bin/env bash
# Fuzzes the readers of what strangers send, one after the other, and ends with an error where one of them fails. Needs a C++ compiler.
#
#   fuzz/run.sh [SECONDS_EACH] [TARGET...]     60 seconds of every target, unless said otherwise
#
# What made one fail stands in fuzz/artifacts; what reached new code is kept in fuzz/corpus, for the next time.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=("$@")
[ $# -gt 0 ] || targets=(authority head proxy_header squid_conf)

# Edges and comparisons are told to libFuzzer (https://clang.llvm.org/docs/SanitizerCoverage.html); this compiler needs no nightly for it.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$triple"

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "=== $target"
    "target/$triple/release/$target" -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -print_final_stats=1 \
        "corpus/$target" "seeds/$target"
done
