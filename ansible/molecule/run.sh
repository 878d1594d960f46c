#!/usr/bin/env bash
# Runs Molecule scenarios from a bare clone: tools, containers' Debian, release tars, then create,
# converge, converge again (nothing may change, in check mode neither), verify, destroy. Prints how
# long the playbook took the first and the second time.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SUITE=bookworm
declare -rA PYTHON=([bookworm]=3.11 [trixie]=3.13)
KEEP=no
IF_POSSIBLE=no
SCENARIOS=()
# The goal is half of the first run by the clock, on a machine that does nothing else. What fails a
# scenario is processor time, which the others' load changes less: an unchanged host was measured
# at 46 to 52 %, a host that is provisioned anew would be near 100.
SECOND_PROCESSOR_PERCENT_MAX=60

say() { printf 'molecule: %s\n' "$*"; }

usage() {
  cat <<'TEXT'
usage: ansible/molecule/run.sh [--suite bookworm|trixie] [--keep] [--if-possible] SCENARIO...

  --suite        Debian 12 (bookworm, unless said otherwise) or Debian 13 (trixie)
  --keep         leave the containers of a scenario that failed; `--keep` again or `molecule destroy`
                 ends them
  --if-possible  end well, and say so, where this machine does not let a container run; no time is
                 judged
TEXT
}

# Runs a command into the log; sets WALL and PROCESSOR, hundredths of seconds. Children that it
# waits for count, and so do the modules in the containers: they are its children too.
WALL=0
PROCESSOR=0
measure() { # log, command...
  local log="$1" spent TIMEFORMAT='%R %U %S'
  shift
  if ! spent="$({ time "$@" >"${log}" 2>&1; } 2>&1)"; then
    tail --lines=60 "${log}" >&2
    return 1
  fi
  WALL="$(awk '{ printf "%d", $1 * 100 }' <<<"${spent}")"
  PROCESSOR="$(awk '{ printf "%d", ($2 + $3) * 100 }' <<<"${spent}")"
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
  local scenario="$1" log start began wall again first second share
  export MOLECULE_EPHEMERAL_DIRECTORY="${HEALTHSYNC_ROOT}/.tools/molecule/${scenario}"
  log="${HEALTHSYNC_ROOT}/.tools/molecule/${scenario}.log"
  rm -rf "${MOLECULE_EPHEMERAL_DIRECTORY}"
  mkdir -p "${MOLECULE_EPHEMERAL_DIRECTORY}"
  chmod 700 "${MOLECULE_EPHEMERAL_DIRECTORY}"
  molecule destroy --scenario-name "${scenario}" >"${log}" 2>&1
  # What a scenario needs besides the release of this folder; it gets its own folder.
  if [[ -e "molecule/${scenario}/before.sh" ]]; then
    say "${scenario}: before"
    bash "molecule/${scenario}/before.sh" "${MOLECULE_EPHEMERAL_DIRECTORY}"
  fi
  say "${scenario}: create"
  molecule create --scenario-name "${scenario}" >"${log}" 2>&1
  molecule prepare --scenario-name "${scenario}" >"${log}" 2>&1
  # What Molecule itself takes to find that there is nothing to prepare is no part of a playbook.
  measure "${log}" molecule prepare --scenario-name "${scenario}"
  start="${PROCESSOR}" began="${WALL}"

  say "${scenario}: converge"
  measure "${log}" molecule converge --scenario-name "${scenario}"
  wall=$((WALL - began)) first=$((PROCESSOR - start))
  say "${scenario}: converge again, then in check mode"
  measure "${log}" molecule converge --scenario-name "${scenario}"
  assert_unchanged "${log}" "a second run"
  again=$((WALL - began)) second=$((PROCESSOR - start))
  share=$((100 * second / first))
  say "${scenario}: first run $((wall / 100)) s, second $((again / 100)) s: $((100 * again / wall)) %;" \
    "of processor $((first / 100)) s and $((second / 100)) s: ${share} %"
  measure "${log}" molecule converge --scenario-name "${scenario}" -- --check --diff
  assert_unchanged "${log}" "a run in check mode"

  molecule verify --scenario-name "${scenario}"
  if [[ "${IF_POSSIBLE}" == no ]] && ((share > SECOND_PROCESSOR_PERCENT_MAX)); then
    say "the second run may take ${SECOND_PROCESSOR_PERCENT_MAX} % of the first's processor time" >&2
    return 1
  fi
}

# Prints what podman says when not.
lets_a_container_run() {
  timeout 60 podman run --rm --network none --cap-add SYS_ADMIN --security-opt seccomp=unconfined \
    "localhost/healthsync-debian:${SUITE}" /bin/true 2>&1 | tail --lines=1
}

main() {
  local refused
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --suite)
        SUITE="${2:?--suite needs a name}"
        shift
        ;;
      --keep) KEEP=yes ;;
      --if-possible) IF_POSSIBLE=yes ;;
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
  if [[ ${#SCENARIOS[@]} -eq 0 || ! -v "PYTHON[${SUITE}]" ]]; then
    usage >&2
    return 64
  fi
  if [[ "${IF_POSSIBLE}" == yes && "${EUID}" -ne 0 ]] && ! sudo --non-interactive true 2>/dev/null; then
    say "SKIPPED: containers with systemd need root, and sudo asks for a password"
    return 0
  fi
  bash "${HERE}/../setup.sh"
  # shellcheck source=ansible/molecule/shared/podman-env.sh
  source "${HERE}/shared/podman-env.sh"
  bash "${HERE}/shared/rootfs.sh" --suite "${SUITE}"
  if [[ "${IF_POSSIBLE}" == yes ]] && ! refused="$(lets_a_container_run)"; then
    say "SKIPPED: this machine lets no container run: ${refused}"
    return 0
  fi
  export HEALTHSYNC_SUITE="${SUITE}"
  export HEALTHSYNC_ARTIFACTS="${HEALTHSYNC_ROOT}/.tools/artifacts-${SUITE}"
  bash "${HERE}/../artifacts.sh" --python "${PYTHON[${SUITE}]}" --folder "${HEALTHSYNC_ARTIFACTS}"
  export PATH="${HEALTHSYNC_ROOT}/.tools/provision/bin:${PATH}"
  # Nothing is written to the caller's home.
  export ANSIBLE_HOME="${HEALTHSYNC_ROOT}/.tools/ansible-home"
  export XDG_CACHE_HOME="${ANSIBLE_HOME}/cache"
  # A fact that a busy machine is slow to tell is waited for.
  export ANSIBLE_GATHER_TIMEOUT=60
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
