#!/usr/bin/env bash
# Runs Molecule scenarios from a bare clone: tools, containers' Debian, release tars, then create,
# converge, converge again (nothing may change, in check mode neither), verify, destroy. Prints how
# long the playbook took the first and the second time.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SUITE=bookworm
KEEP=no
SCENARIOS=()
# What the second run may take of the first. A busy machine makes one run slow by chance: the
# second is repeated a few times, and the quickest counts.
SECOND_PERCENT_MAX=50
SECOND_TRIES=3

say() { printf 'molecule: %s\n' "$*"; }

usage() {
  cat <<'TEXT'
usage: ansible/molecule/run.sh [--keep] SCENARIO...

  --keep  leave the containers of a scenario that failed; `--keep` again or `molecule destroy` ends them
TEXT
}

# Seconds of the playbook itself, as its timer says; Molecule's own start is no part of it.
tell_seconds() { # log
  sed --quiet --regexp-extended \
    's/^Playbook run took 0 days, ([0-9]+) hours, ([0-9]+) minutes, ([0-9]+) seconds$/\1 \2 \3/p' "$1" |
    awk '{ seconds = $1 * 3600 + $2 * 60 + $3 } END { print seconds }'
}

# The last lines of a converge name each host with its counts; all must say changed=0, failed=0.
assert_unchanged() { # log, what
  if ! grep --quiet --extended-regexp ': ok=[0-9]+ +changed=' "$1" ||
    grep --extended-regexp ': ok=[0-9]+ +changed=[1-9]' "$1"; then
    say "$2 would change something that is as it should be" >&2
    grep --extended-regexp --before-context=30 '^changed:' "$1" >&2 || true
    return 1
  fi
}

run_one() { # scenario
  local scenario="$1" log first took try second=""
  export MOLECULE_EPHEMERAL_DIRECTORY="${HEALTHSYNC_ROOT}/.tools/molecule/${scenario}"
  log="${HEALTHSYNC_ROOT}/.tools/molecule/${scenario}.log"
  rm -rf "${MOLECULE_EPHEMERAL_DIRECTORY}"
  mkdir -p "${MOLECULE_EPHEMERAL_DIRECTORY}"
  chmod 700 "${MOLECULE_EPHEMERAL_DIRECTORY}"
  molecule destroy --scenario-name "${scenario}" >"${log}" 2>&1
  molecule create --scenario-name "${scenario}"
  molecule prepare --scenario-name "${scenario}"

  molecule converge --scenario-name "${scenario}" | tee "${log}"
  first="$(tell_seconds "${log}")"
  for try in $(seq "${SECOND_TRIES}"); do
    molecule converge --scenario-name "${scenario}" >"${log}"
    assert_unchanged "${log}" "a second run"
    took="$(tell_seconds "${log}")"
    say "run $((try + 1)): unchanged, ${took} s"
    if [[ -z "${second}" || "${took}" -lt "${second}" ]]; then second="${took}"; fi
    if ((100 * second <= SECOND_PERCENT_MAX * first)); then break; fi
  done
  molecule converge --scenario-name "${scenario}" -- --check --diff >"${log}"
  assert_unchanged "${log}" "a run in check mode"

  molecule verify --scenario-name "${scenario}"
  say "${scenario}: first run ${first} s, second ${second} s ($((100 * second / first)) %)"
  if ((100 * second > SECOND_PERCENT_MAX * first)); then
    say "the second run may take ${SECOND_PERCENT_MAX} % of the first at most" >&2
    return 1
  fi
}

main() {
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --keep) KEEP=yes ;;
      --help)
        usage
        return 0
        ;;
      -*)
        usage >&2
        return 64
        ;;
      *) SCENARIOS+=("$1") ;;
    esac
    shift
  done
  if [[ ${#SCENARIOS[@]} -eq 0 ]]; then
    usage >&2
    return 64
  fi
  bash "${HERE}/../setup.sh"
  # shellcheck source=ansible/molecule/shared/podman-env.sh
  source "${HERE}/shared/podman-env.sh"
  bash "${HERE}/shared/rootfs.sh" --suite "${SUITE}"
  bash "${HERE}/../artifacts.sh"
  export PATH="${HEALTHSYNC_ROOT}/.tools/provision/bin:${PATH}"
  export HEALTHSYNC_ARTIFACTS="${HEALTHSYNC_ROOT}/.tools/artifacts"
  # Nothing is written to the caller's home.
  export ANSIBLE_HOME="${HEALTHSYNC_ROOT}/.tools/ansible-home"
  export XDG_CACHE_HOME="${ANSIBLE_HOME}/cache"
  export ANSIBLE_CALLBACKS_ENABLED=ansible.posix.timer
  export ANSIBLE_FORCE_COLOR=0 ANSIBLE_NOCOLOR=1 NO_COLOR=1

  cd "${HERE}/.."
  local scenario status=0
  for scenario in "${SCENARIOS[@]}"; do
    # Not `run_one || …`, which would switch off `set -e` in it.
    set +e
    (
      set -e
      run_one "${scenario}"
    )
    status=$?
    set -e
    if [[ "${status}" -eq 0 || "${KEEP}" == no ]]; then
      MOLECULE_EPHEMERAL_DIRECTORY="${HEALTHSYNC_ROOT}/.tools/molecule/${scenario}" \
        molecule destroy --scenario-name "${scenario}" >/dev/null 2>&1 || status=1
    fi
    if [[ "${status}" -ne 0 ]]; then
      say "${scenario} failed" >&2
      break
    fi
  done
  return "${status}"
}

main "$@"
