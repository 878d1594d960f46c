#!/usr/bin/env bash
# A hook of mmdebstrap's: puts Debian packages and what they need beside the system in ROOT, as a
# source of packages on its own disk, and makes it the only one.
#   package-folder.sh ROOT PACKAGE...
set -euo pipefail

readonly ROOT="$1" FOLDER="$1/srv/debian"
shift

APT_CONFIG="${MMDEBSTRAP_APT_CONFIG:?mmdebstrap sets it}" \
  apt-get --quiet=2 --yes --no-install-recommends --download-only install "$@" >&2
mkdir -p "${FOLDER}"
cd "${FOLDER}"
for deb in "${ROOT}"/var/cache/apt/archives/*.deb; do
  # An epoch's colon is written %3a, which apt would take for a colon when it asks for the file.
  name="$(basename "${deb}")"
  name="${name//%3a/.}"
  mv "${deb}" "${name}"
  dpkg-deb --field "${name}"
  printf 'Filename: ./%s\nSize: %d\nSHA256: %s\n\n' "${name}" "$(stat --format=%s "${name}")" \
    "$(sha256sum <"${name}" | cut --delimiter=' ' --fields=1)"
done >Packages

rm -rf "${ROOT}"/etc/apt/sources.list.d/* "${ROOT}"/var/lib/apt/lists/*
printf 'deb [trusted=yes] file:/srv/debian ./\n' >"${ROOT}/etc/apt/sources.list"
chroot "${ROOT}" apt-get --quiet=2 update >&2
