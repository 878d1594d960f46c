#!/usr/bin/env bash
# Installs what provisioning needs on the machine it is typed on: Ansible, its linters and Molecule
# in an environment of their own, and podman with settings of its own for trying roles out. Run
# again it does only what changed. Nothing outside .tools is written, apart from Debian packages;
# the machine's own podman settings, images and containers are neither read nor touched.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TOOLS="${ROOT}/.tools"
VENV="${TOOLS}/provision"
PODMAN="${TOOLS}/podman"
WITH_PODMAN=yes

say() { printf 'provision: %s\n' "$*"; }

usage() {
  cat <<'TEXT'
usage: ansible/setup.sh [--without-podman]

  --without-podman  only Ansible and the linters: what `make check` needs
TEXT
}

as_root() {
  if [[ "$(id --user)" -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "this needs root and there is no sudo: $*" >&2
    return 1
  fi
}

retry() {
  local try
  for try in 1 2 3; do
    "$@" && return 0
    say "try ${try} failed: $1; again in $((try * 5)) s" >&2
    sleep $((try * 5))
  done
  return 1
}

# A stamp holds what a step was made from; equal means there is nothing to do.
fresh() { [[ -f "${TOOLS}/stamps/$1" && "$(<"${TOOLS}/stamps/$1")" == "$2" ]]; }
stamp() {
  mkdir -p "${TOOLS}/stamps"
  printf '%s\n' "$2" >"${TOOLS}/stamps/$1"
}

install_packages() {
  local package missing=() wanted=(podman runc mmdebstrap)
  for package in "${wanted[@]}"; do
    if ! dpkg-query --show --showformat='${db:Status-Status}\n' "${package}" 2>/dev/null |
      grep --quiet --line-regexp installed; then
      missing+=("${package}")
    fi
  done
  if [[ ${#missing[@]} -eq 0 ]]; then
    say "podman, runc and mmdebstrap are there"
    return
  fi
  say "installing: ${missing[*]}"
  retry as_root apt-get update --quiet=2
  retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 \
    --no-install-recommends "${missing[@]}" >/dev/null
}

install_ansible() {
  local lock="${ROOT}/requirements/provision.txt" wanted
  wanted="$(sha256sum <"${lock}" | cut --delimiter=' ' --fields=1) $(/usr/bin/python3 --version)"
  if fresh provision "${wanted}" && [[ -x "${VENV}/bin/ansible-playbook" ]]; then
    say "Ansible is up to date"
    return
  fi
  say "installing Ansible, its linters and Molecule (about a minute and a half)"
  rm -rf "${VENV}"
  /usr/bin/python3 -m venv "${VENV}"
  retry "${VENV}/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
    --requirement "${lock}"
  stamp provision "${wanted}"
}

write_if_new() { # file; content on standard input
  local content
  content="$(cat)"
  [[ -f "$1" && "$(<"$1")" == "${content}" ]] || printf '%s\n' "${content}" >"$1"
}

# runc, because crun refuses hosts that mix both kinds of control groups; limits that a machine
# with low ones of its own may still give to a container.
configure_podman() {
  local open processes
  mkdir -p "${PODMAN}"
  # shellcheck source=ansible/molecule/shared/podman-env.sh
  source "${ROOT}/ansible/molecule/shared/podman-env.sh"
  open="$(ulimit -H -n)"
  processes="$(ulimit -H -u)"
  if [[ "${open}" == unlimited || "${open}" -gt 20000 ]]; then open=20000; fi
  if [[ "${processes}" == unlimited || "${processes}" -gt 20000 ]]; then processes=20000; fi
  write_if_new "${PODMAN}/containers.conf" <<TEXT
[containers]
default_ulimits = ["nofile=${open}:${open}", "nproc=${processes}:${processes}"]
log_driver = "k8s-file"

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
TEXT
  write_if_new "${PODMAN}/storage.conf" <<TEXT
[storage]
driver = "overlay"
graphroot = "$(realpath "${PODMAN}")/storage"
runroot = "${HEALTHSYNC_RUNNING}"
TEXT
  # No registry is named: an image that is not here is an error, never a download.
  write_if_new "${PODMAN}/registries.conf" <<<'unqualified-search-registries = []'
}

main() {
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --without-podman) WITH_PODMAN=no ;;
      --help)
        usage
        return 0
        ;;
      *)
        usage >&2
        return 64
        ;;
    esac
    shift
  done
  mkdir -p "${TOOLS}/stamps"
  install_ansible
  if [[ "${WITH_PODMAN}" == yes ]]; then
    install_packages
    configure_podman
  fi
  say "done; the commands are in .tools/provision/bin"
}

main "$@"
