#!/usr/bin/env bash
# Runs every test: units, `it`, documentation, and the laboratory of network namespaces. Installs what they need and
# is missing (Debian, Ubuntu), and can be run as often as you like.
#
#   tests/run.sh             all of it
#   tests/run.sh --prepare   only installs
#
# The laboratory needs root, or sudo without a password. MUSTNOT_SKIP_LAB=1 leaves it out, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf '\n=== %s\n' "$*"; }

# A command that must be there, and the package that brings it.
NEEDS=(
    cc:gcc nft:nftables ip:iproute2 sysctl:procps unshare:util-linux nsenter:util-linux setpriv:util-linux squid:squid
    unbound:unbound nsd:nsd knotd:knot dig:bind9-dnsutils
    chronyd:chrony snmpd:snmpd memcached:memcached turnserver:coturn coap-server-notls:libcoap3-bin rpcbind:rpcbind caddy:caddy
    /usr/lib/ipsec/charon:strongswan-charon
    nginx:nginx-light haproxy:haproxy apache2:apache2
    promtool:prometheus prometheus:prometheus victoria-metrics:victoria-metrics amtool:prometheus-alertmanager prometheus-alertmanager:prometheus-alertmanager python3:python3 curl:curl nc:netcat-openbsd openssl:openssl update-ca-certificates:ca-certificates
    prove:perl cmark-gfm:cmark-gfm
    # What completions and manual pages are for.
    zsh:zsh fish:fish man:man-db mandoc:mandoc
    # The zoo of proxies.
    tinyproxy:tinyproxy-bin danted:dante-server microsocks:microsocks privoxy:privoxy
    ncat:ncat sniproxy:sniproxy lighttpd:lighttpd nghttpx:nghttp2-proxy simpleproxy:simpleproxy socat:socat stunnel4:stunnel4
    ssh:openssh-client sshd:openssh-server
    # The unit of deploy/systemd is read, and run.
    systemd-analyze:systemd
)
POLICY=/usr/sbin/policy-rc.d

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

missing_packages() {
    for need in "${NEEDS[@]}"; do
        command -v "${need%%:*}" >/dev/null || echo "${need#*:}"
    done | sort -u
    # The C library's headers come apart from the compiler where nothing recommended is installed.
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    [ -e /usr/lib/python3/dist-packages/prometheus_client ] || echo python3-prometheus-client
    [ -e /usr/lib/python3/dist-packages/yaml ] || echo python3-yaml
    /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || echo libnginx-mod-stream
}

# Debian starts a daemon as soon as it is installed; a policy of 101 forbids that (invoke-rc.d(8)). It goes again, whatever happens.
forbid_daemons() {
    [ -e "$POLICY" ] && return
    trap 'as_root rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
}

allow_daemons() {
    trap - EXIT
    [ "$1" = ours ] && as_root rm -f "$POLICY"
    return 0
}

prepare() {
    local packages whose=theirs
    mapfile -t packages < <(missing_packages)
    if [ "${#packages[@]}" = 0 ]; then
        say "everything that the tests need is installed"
        return
    fi
    say "installing: ${packages[*]}"
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        echo "cannot install without root or sudo; install them yourself: ${packages[*]}" >&2
        exit 1
    fi
    [ -e "$POLICY" ] || whose=ours
    forbid_daemons
    as_root apt-get update -q </dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" </dev/null
    allow_daemons "$whose"
}

# Packages of PyPI that read our dashboards, metrics and deployments, in places of their own; made anew where other versions are asked for.
# checkov and Datadog's own check want different versions of the same packages, so it stands alone.
prepare_python() {
    prepare_place tests/python/requirements.txt target/python
    prepare_place tests/python/checkov.txt target/checkov
}

prepare_place() {
    local asked=$1 place=$2
    if cmp -s "$asked" "$place/requirements.txt"; then
        say "$place has what $asked asks for"
        return
    fi
    say "installing $asked into $place"
    rm -rf "$place"
    /usr/bin/python3 -m venv "$place"
    "$place/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary :all: --requirement "$asked" </dev/null
    cp "$asked" "$place/requirements.txt"
}

FAILED=()
LOG=

# Runs one part to its end; what it came to is told again at the end.
part() {
    local name=$1
    shift
    say "$name: $*"
    echo "# $name" >>"$LOG"
    if ! "$@" </dev/null 2>&1 | tee -a "$LOG"; then
        FAILED+=("$name")
    fi
}

laboratory() {
    export RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}"
    if [ "${MUSTNOT_SKIP_LAB:-}" = 1 ]; then
        say "laboratory: SKIPPED, since MUSTNOT_SKIP_LAB=1"
        echo "# laboratory: SKIPPED, since MUSTNOT_SKIP_LAB=1" >>"$LOG"
    elif [ "$(id -u)" = 0 ]; then
        part "laboratory" cargo test --test lab -- --show-output
    elif sudo -n -E true 2>/dev/null; then
        # Built by this user, run by root: cargo puts the runner before the test's own binary.
        local triple
        triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        part "laboratory" env "CARGO_TARGET_${triple}_RUNNER=sudo -n -E" cargo test --test lab -- --show-output
    else
        say "laboratory: cannot run: it needs root, or sudo without a password; MUSTNOT_SKIP_LAB=1 leaves it out"
        FAILED+=("laboratory")
    fi
}

prepare
prepare_python
[ "${1:-}" = --prepare ] && exit 0

LOG=$(mktemp)
# What a test that passes prints is kept back without --show-output; and what it left out, and why, is in that.
part "units" cargo test --lib -- --show-output
part "it" cargo test --test it -- --show-output
part "documentation" cargo test --doc
# Terraform is no Debian package, and its providers come from a registry; what it could not do it says.
part "deploy/aws" deploy/aws/check.sh
laboratory

say "what it came to"
grep -E '^(# |test result: |test .* \.\.\. FAILED|SKIP|error)' "$LOG" || true
rm -f "$LOG"
if [ "${#FAILED[@]}" != 0 ]; then
    say "FAILED: ${FAILED[*]}"
    exit 1
fi
say "all passed"
