#!/usr/bin/env bash
# To be sourced: points podman at the settings that ansible/setup.sh wrote under .tools, so that
# the machine's own containers and these never see each other.
HEALTHSYNC_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
export HEALTHSYNC_ROOT
# What runs of this folder's: another folder's scenario may run at the same time.
HEALTHSYNC_RUNNING="/run/healthsync-podman/$(cksum <<<"${HEALTHSYNC_ROOT}" | cut --delimiter=' ' --fields=1)"
export HEALTHSYNC_RUNNING
export CONTAINERS_CONF="${HEALTHSYNC_ROOT}/.tools/podman/containers.conf"
export CONTAINERS_STORAGE_CONF="${HEALTHSYNC_ROOT}/.tools/podman/storage.conf"
export CONTAINERS_REGISTRIES_CONF="${HEALTHSYNC_ROOT}/.tools/podman/registries.conf"
