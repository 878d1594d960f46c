#!/usr/bin/env bash
# Builds the Debian that Molecule's containers run: what an installed Debian has, with systemd as
# process 1, and on its disk the packages that the roles install, so that they do so without any
# network. It becomes the podman image localhost/healthsync-debian:SUITE and is built anew only when
# this file or its hook changed.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SUITE=bookworm
# shellcheck source=ansible/molecule/shared/podman-env.sh
source "${HERE}/podman-env.sh"

usage() {
  cat <<'TEXT'
usage: ansible/molecule/shared/rootfs.sh [--suite bookworm|trixie]
TEXT
}

PACKAGES=(
  # What any installed Debian has.
  systemd systemd-sysv dbus libpam-systemd udev python3 python3-apt sudo iproute2 procps
  ca-certificates kmod tzdata netbase acl e2fsprogs openssh-server
  # What only verify types.
  curl jq iptables nftables
)
# What the roles install: from the disk of the container.
TO_INSTALL=(
  python3-venv openssl haproxy chrony unattended-upgrades redis-server redis-tools
  default-jre-headless keepalived prometheus-node-exporter cryptsetup-bin
  htop net-tools netcat-openbsd tcpdump
)

mirror() { # the suffix of the suite; an address this machine already uses
  local file=/etc/apt/sources.list.d/debian.sources
  if [[ "$1" == security ]]; then
    awk '/^URIs:/ && /security/ { print $2; exit }' "${file}"
  else
    awk '/^URIs:/ && !/security/ { print $2; exit }' "${file}"
  fi
}

build() { # tar
  local main security include
  main="$(mirror main)"
  security="$(mirror security)"
  include="$(IFS=,; printf '%s' "${PACKAGES[*]}")"
  # shellcheck disable=SC2016 # mmdebstrap gives the folder as $1 to the hooks
  mmdebstrap --quiet --mode=root --variant=minbase --include="${include}" \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Retries "3"' \
    --dpkgopt='force-unsafe-io' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --setup-hook='mkdir -p "$1/usr/share/man/man1"' \
    --customize-hook='rm -f "$1/etc/machine-id" "$1"/etc/ssh/ssh_host_*; : >"$1/etc/machine-id"' \
    --customize-hook="bash '${HERE}/package-folder.sh' \"\$1\" ${TO_INSTALL[*]}" \
    --skip=cleanup/apt \
    --customize-hook='chroot "$1" systemctl --quiet disable ssh' \
    "${SUITE}" "$1" \
    "deb ${main} ${SUITE} main" \
    "deb ${main} ${SUITE}-updates main" \
    "deb ${security} ${SUITE}-security main"
}

main() {
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --suite)
        SUITE="${2:?--suite needs a name}"
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
  local image="localhost/healthsync-debian:${SUITE}" wanted have tar
  wanted="$(cat "${BASH_SOURCE[0]}" "${HERE}/package-folder.sh" | sha256sum | cut --delimiter=' ' --fields=1)"
  have="$(podman image inspect --format '{{ index .Labels "source" }}' "${image}" 2>/dev/null || true)"
  if [[ "${have}" == "${wanted}" ]]; then
    printf 'rootfs: %s is up to date\n' "${image}"
    return
  fi
  printf 'rootfs: building %s (about a minute and a half)\n' "${image}"
  tar="$(mktemp --suffix=.tar --tmpdir="${HEALTHSYNC_ROOT}/.tools/podman" rootfs-XXXXXX)"
  # shellcheck disable=SC2064 # the name of now
  trap "rm -f '${tar}'" EXIT
  build "${tar}"
  podman import --quiet --change "LABEL source=${wanted}" --change 'CMD ["/sbin/init"]' \
    --change 'STOPSIGNAL SIGRTMIN+3' "${tar}" "${image}" >/dev/null
  printf 'rootfs: %s\n' "$(podman image inspect --format '{{ .Size }} bytes, {{ .Id }}' "${image}")"
}

main "$@"
