#!/usr/bin/env bash
# Makes what hosts are installed from without a package index: edge.tar and cloud.tar, each with the
# project's wheel, the wheels of its lock file and a requirements.txt with the hash of every one.
# The same source gives the same bytes, so a tar's hash names a release. Made anew only when the
# program or a lock file changed.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
FOLDER="${ROOT}/.tools/artifacts"
PYTHON=3.11
SOURCES=(vitals edge cloud firewall simulators onebox bench healthsync pyproject.toml README.md
  requirements/edge.txt requirements/cloud.txt requirements/build.txt)

say() { printf 'artifacts: %s\n' "$*"; }

usage() {
  cat <<'TEXT'
usage: ansible/artifacts.sh [--folder FOLDER] [--python VERSION]

  --folder   where to put them (default: .tools/artifacts)
  --python   the hosts' Python (default: 3.11, of Debian 12; Debian 13 has 3.13)
TEXT
}

# Names and contents of what is in the wheel, and nothing that running the program left behind.
source_hash() {
  (
    cd "${ROOT}"
    find "${SOURCES[@]}" -type f -not -path '*/__pycache__/*' -print0 | sort --zero-terminated |
      xargs --null sha256sum
    printf 'python %s\n' "${PYTHON}"
    sha256sum <ansible/artifacts.sh
  ) | sha256sum | cut --delimiter=' ' --fields=1
}

tools() { # a Python with pip and, from the hash-locked file, setuptools
  local venv="${ROOT}/.tools/provision-build"
  if [[ ! -x "${venv}/bin/pip" ]]; then
    /usr/bin/python3 -m venv "${venv}"
    "${venv}/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
      --requirement "${ROOT}/requirements/build.txt"
  fi
  printf '%s\n' "${venv}/bin/python"
}

download() { # python, requirement file, folder
  "$1" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
    --only-binary :all: --python-version "${PYTHON}" --dest "$3" --requirement "$2"
}

build() { # python, folder: from a copy, because setuptools writes beside what it builds
  local copy status=0
  copy="$(mktemp --directory)"
  (cd "${ROOT}" && tar --create --exclude=__pycache__ "${SOURCES[@]}") |
    tar --extract --directory="${copy}"
  SOURCE_DATE_EPOCH=315532800 "$1" -m pip wheel --quiet --disable-pip-version-check \
    --no-build-isolation --no-deps --wheel-dir "$2" "${copy}" || status=$?
  rm -rf "${copy}"
  return "${status}"
}

pack() { # python, side
  local folder="${FOLDER}/$2" wheel version
  mkdir -p "${folder}"
  download "$1" "${ROOT}/requirements/$2.txt" "${folder}"
  wheel="$(find "${FOLDER}" -maxdepth 1 -name 'iot_health_sync-*.whl')"
  version="$(basename "${wheel}" | cut --delimiter=- --fields=2)"
  cp "${wheel}" "${folder}"
  {
    cat "${ROOT}/requirements/$2.txt"
    printf 'iot-health-sync==%s --hash=sha256:%s\n' "${version}" \
      "$(sha256sum <"${wheel}" | cut --delimiter=' ' --fields=1)"
  } >"${folder}/requirements.txt"
  tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    --directory="${folder}" --file="${FOLDER}/$2.tar" .
  rm -rf "${folder}"
  say "$2.tar: $(tar --list --file="${FOLDER}/$2.tar" | grep --count '[.]whl$') wheels"
}

main() {
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --folder)
        FOLDER="${2:?--folder needs a path}"
        shift
        ;;
      --python)
        PYTHON="${2:?--python needs a version}"
        shift
        ;;
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
  local wanted python
  wanted="$(source_hash)"
  if [[ -f "${FOLDER}/made-of" && "$(<"${FOLDER}/made-of")" == "${wanted}" ]]; then
    say "${FOLDER} is up to date"
    return
  fi
  mkdir -p "${FOLDER}"
  # Only what this script made: the folder may be somebody's.
  rm -rf "${FOLDER}/edge" "${FOLDER}/cloud"
  rm -f "${FOLDER}/made-of" "${FOLDER}"/{edge,cloud}.tar "${FOLDER}"/iot_health_sync-*.whl
  python="$(tools)"
  say "building the project's wheel"
  build "${python}" "${FOLDER}"
  say "fetching the locked wheels for Python ${PYTHON}"
  pack "${python}" edge
  pack "${python}" cloud
  printf '%s\n' "${wanted}" >"${FOLDER}/made-of"
}

main "$@"
