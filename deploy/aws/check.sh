#!/usr/bin/env bash
# Checks this module: format, validity, its tests and what its refusals say, which need neither an account nor credentials; and what checkov finds.
#
#   deploy/aws/check.sh           all of it; says what it could not do, and why
#   deploy/aws/check.sh --bless   writes examples/ and tests/reasons.txt anew from what the tests render
#
# TERRAFORM names another terraform, CHECKOV another checkov. A provider comes from its registry, or from wherever TF_CLI_CONFIG_FILE says.
set -euo pipefail
cd "$(dirname "$0")"
terraform=${TERRAFORM:-terraform}
checkov=${CHECKOV:-$PWD/../../target/checkov/bin/checkov}
bless=${1:-}

# Each finding is mended, or answered in a comment beside it (checkov:skip).
if command -v "$checkov" >/dev/null; then
    "$checkov" --directory . --framework terraform --skip-download --compact --quiet
else
    echo "SKIPPED deploy/aws: checkov, since there is no $checkov (tests/run.sh --prepare installs it)"
fi

if ! command -v "$terraform" >/dev/null; then
    echo "SKIPPED deploy/aws: there is no terraform here (https://developer.hashicorp.com/terraform/install); its examples/ are checked by cargo test all the same"
    exit 0
fi
"$terraform" fmt -check -diff -recursive

# A registry that cannot be reached is told apart from all else that can fail, here and at `init`: a broken module, a version that nobody has, a
# checksum that is another. Of `init` nothing is left but the lock file.
export TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
if ! said=$("$terraform" validate -no-color 2>&1); then
    if [[ $said != *"terraform init"* ]]; then
        printf '%s\n' "$said" >&2
        exit 1
    fi
    TF_DATA_DIR=$(mktemp -d)
    export TF_DATA_DIR
    trap 'rm -rf "$TF_DATA_DIR"' EXIT
    if ! said=$("$terraform" init -backend=false -input=false -no-color 2>&1); then
        # Terraform breaks its lines anywhere.
        if ! tr -s '\n ' ' ' <<<"$said" | grep -qE 'could not connect to|failed to request discovery document|dial tcp|i/o timeout|connection (refused|reset)'; then
            printf '%s\n' "$said" >&2
            exit 1
        fi
        echo "SKIPPED deploy/aws: validate and test, since the provider cannot be had here; the format is right. Terraform said:"
        printf '%s\n' "$said" | grep -m1 -i 'error' || printf '%s\n' "$said" | tail -n 3
        exit 0
    fi
fi
"$terraform" validate -no-color

if [ "$bless" = --bless ]; then
    "$terraform" test -json -filter=tests/examples.tftest.hcl 2>&1 | python3 -c '
import json, pathlib, sys
for line in sys.stdin:
    said = (json.loads(line) if line.startswith("{") else {}).get("diagnostic", {}).get("detail", "")
    name, is_one, text = said.partition(" is not what the state renders, which is:\n")
    if is_one:
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") + "\n")
        print("wrote", name)' || true
    python3 tests/reasons.py "$terraform" >tests/reasons.txt
fi
"$terraform" test -no-color
# What was refused, was refused for the right reason, and says what to write instead.
python3 tests/reasons.py "$terraform" | diff -u tests/reasons.txt -
echo "deploy/aws: every refusal gives its reason"
