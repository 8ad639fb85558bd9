#!/usr/bin/env bash
# Runs a command that makes network namespaces: as it is for root, and in a user namespace of its own, where
# it is root over nothing but its own network and its own /run, for anybody else.
set -euo pipefail

if [[ $EUID -eq 0 ]]; then
    exec "$@"
fi
if ! unshare -Urnm true 2>/dev/null; then
    echo "This needs root, or user namespaces: as root, sysctl -w kernel.unprivileged_userns_clone=1" >&2
    echo "user.max_user_namespaces=10000 (and kernel.apparmor_restrict_unprivileged_userns=0 where there is one)." >&2
    exit 1
fi
exec unshare -Urnm --propagation private bash -c '
    mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up && exec "$@"' -- "$@"
