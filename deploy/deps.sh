#!/usr/bin/env bash
# Installs the Debian packages that a lab or the tests need, to be built and to run, if they are not there.
#
# usage: deps.sh lab|test
#
# Routers come with services that Debian starts at once. A lab starts its own, in namespaces, so services
# of packages that are installed here are neither started nor enabled.
set -euo pipefail

# A package, and a file that shows that it is there.
lab=(
    gcc:/usr/bin/cc
    libc6-dev:/usr/include/stdio.h
    iproute2:/sbin/ip
    iptables:/usr/sbin/iptables
    bird2:/usr/sbin/bird
)
test=(
    "${lab[@]}"
    ipset:/usr/sbin/ipset
    frr:/usr/lib/frr/bgpd
    gobgpd:/usr/bin/gobgpd
    openbgpd:/usr/sbin/bgpctl
    exabgp:/usr/sbin/exabgp
    containernetworking-plugins:/usr/lib/cni/ptp
    busybox-static:/bin/busybox
    containerd:/usr/bin/containerd
    podman:/usr/bin/podman
    runc:/usr/sbin/runc
    strace:/usr/bin/strace
    iputils-ping:/usr/bin/ping
    conntrack:/usr/sbin/conntrack
    valgrind:/usr/bin/valgrind
    kubernetes-client:/usr/bin/kubectl
    golang-go:/usr/bin/go
    golang-github-masterminds-sprig-dev:/usr/share/gocode/src/github.com/Masterminds/sprig
    golang-github-xeipuuv-gojsonschema-dev:/usr/share/gocode/src/github.com/xeipuuv/gojsonschema
    golang-gopkg-yaml.v3-dev:/usr/share/gocode/src/gopkg.in/yaml.v3
)

case "${1:-}" in
    lab) wanted=("${lab[@]}") ;;
    test) wanted=("${test[@]}") ;;
    *) echo "usage: $0 lab|test" >&2; exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
    echo "Rust is missing: install it from https://rustup.rs; rust-toolchain.toml names the version." >&2
    exit 1
fi

missing=()
for entry in "${wanted[@]}"; do
    [[ -e ${entry#*:} ]] || missing+=("${entry%%:*}")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]} (names of Debian packages). Install what your system calls these, and try again." >&2
    exit 1
fi
if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null; then
    echo "Missing: ${missing[*]}. As root: apt-get install ${missing[*]}" >&2
    exit 1
fi
as_root() { if [[ $EUID -eq 0 ]]; then "$@"; else sudo "$@"; fi; }

echo "Installing: ${missing[*]}"
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi
as_root env DEBIAN_FRONTEND=noninteractive sh -c '
    apt-get -qq update && apt-get -qq install --no-install-recommends "$@" >/dev/null' -- "${missing[@]}"
if [[ -d /run/systemd/system ]]; then
    for service in bird frr gobgpd openbgpd exabgp containerd; do
        case " ${missing[*]} " in
            *" $service"*) as_root systemctl --quiet disable "$service" || true ;;
        esac
    done
fi
