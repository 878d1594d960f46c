#!/usr/bin/env bash
# Ansible's and YAML's linters over everything here; an environment made by ansible/setup.sh.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

main() {
  export PATH="${ROOT}/.tools/provision/bin:${PATH}"
  # Nothing is written to the caller's home, and nothing is asked of the network.
  export ANSIBLE_HOME="${ROOT}/.tools/ansible-home"
  export XDG_CACHE_HOME="${ANSIBLE_HOME}/cache"
  cd "${ROOT}"
  git ls-files '*.yml' '*.yaml' .yamllint ansible/.ansible-lint | xargs yamllint --strict
  cd ansible
  ansible-lint --offline --strict --nocolor -q
}

main "$@"
