#!/usr/bin/env bash
# Makes the two other releases of this scenario: the one that hosts ran before this one, from
# history, and one that starts and falls over. Each becomes a folder of tars in FOLDER.
#   before.sh FOLDER
#   HEALTHSYNC_PREVIOUS=TAG before.sh FOLDER   for another one than the newest tag before this source
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
ARTIFACTS="${HEALTHSYNC_ARTIFACTS:-${ROOT}/.tools/artifacts}"
# Where nothing is tagged, a release is taken to be so many commits.
RELEASE_COMMITS=20

say() { printf 'upgrade: %s\n' "$*"; }

die() {
  say "$*" >&2
  exit 1
}

# Whether a commit can be provisioned: releases before the playbooks never were.
is_release() { # commit
  git -C "${ROOT}" cat-file -e "$1:ansible/artifacts.sh" 2>/dev/null &&
    git -C "${ROOT}" cat-file -e "$1:ansible/cloud.yml" 2>/dev/null
}

previous() {
  local commit
  if [[ -n "${HEALTHSYNC_PREVIOUS:-}" ]]; then
    is_release "${HEALTHSYNC_PREVIOUS}" ||
      die "HEALTHSYNC_PREVIOUS=${HEALTHSYNC_PREVIOUS} is no commit of this clone with ansible/cloud.yml in it"
    printf '%s\n' "${HEALTHSYNC_PREVIOUS}"
    return
  fi
  if commit="$(git -C "${ROOT}" describe --tags --abbrev=0 HEAD^ 2>/dev/null)" && is_release "${commit}"; then
    printf '%s\n' "${commit}"
    return
  fi
  while read -r commit; do
    if is_release "${commit}"; then
      printf '%s\n' "${commit}"
      return
    fi
  done < <(git -C "${ROOT}" rev-list --first-parent --max-count="${RELEASE_COMMITS}" HEAD^ 2>/dev/null | tac)
  die "this clone has no earlier release to upgrade from: git fetch --unshallow --tags, or name a commit" \
    "with HEALTHSYNC_PREVIOUS"
}

# Packs a source as its own script does. What is locked alike is taken from the tars that are there;
# a lock file of other versions asks pip.
pack() { # source, folder
  mkdir -p "$1/.tools"
  if cmp --quiet "$1/requirements/build.txt" "${ROOT}/requirements/build.txt"; then
    ln --symbolic --force "${ROOT}/.tools/provision-build" "$1/.tools/provision-build"
  fi
  (
    export PIP_FIND_LINKS="${FOLDER}/wheels"
    if cmp --quiet "$1/requirements/edge.txt" "${ROOT}/requirements/edge.txt" &&
      cmp --quiet "$1/requirements/cloud.txt" "${ROOT}/requirements/cloud.txt"; then
      export PIP_NO_INDEX=1
    fi
    bash "$1/ansible/artifacts.sh" --folder "$2" >/dev/null
  )
  if cmp --quiet "$2/cloud.tar" "${ARTIFACTS}/cloud.tar"; then
    die "this release is the same as the one before: name another commit with HEALTHSYNC_PREVIOUS"
  fi
}

# A service that says READY, answers and ends some seconds later: what neither a restart's exit code
# nor a single look notices.
break_detect() { # source
  cat >>"$1/cloud/detect/main.py" <<'PYTHON'


_serve = serve


def serve(engine: Engine, stop: Stop, log: Log) -> int:
    """Serve as ever, and fall over."""
    import os
    import threading

    threading.Timer(6, os._exit, [1]).start()
    return _serve(engine, stop, log)
PYTHON
}

main() {
  [[ $# -eq 1 ]] || die "before.sh FOLDER"
  FOLDER="$(cd "$1" && pwd)"
  local commit part source="${FOLDER}/source"
  commit="$(previous)"
  mkdir -p "${FOLDER}/wheels" "${source}/previous" "${source}/broken"
  for part in edge cloud; do
    tar --extract --file="${ARTIFACTS}/${part}.tar" --directory="${FOLDER}/wheels" --wildcards '*.whl'
  done
  rm -f "${FOLDER}"/wheels/iot_health_sync-*.whl

  say "the release before is $(git -C "${ROOT}" log -1 --format='%h, %s' "${commit}")"
  git -C "${ROOT}" archive "${commit}" | tar --extract --directory="${source}/previous"
  pack "${source}/previous" "${FOLDER}/previous"

  # As it lies here, whether it is committed or not.
  git -C "${ROOT}" ls-files --cached --others --exclude-standard --deduplicate -z |
    tar --create --directory="${ROOT}" --null --files-from=- --ignore-failed-read |
    tar --extract --directory="${source}/broken"
  break_detect "${source}/broken"
  pack "${source}/broken" "${FOLDER}/broken"
  rm -rf "${source}" "${FOLDER}/wheels"
}

main "$@"
