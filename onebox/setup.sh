#!/usr/bin/env bash
# Installs what one machine needs, from a bare Debian 12 or 13: system packages, the Python
# environment from hash-locked requirements, Kafka and HL7's validator from Maven, the S3 gateway
# from Go modules. Run again it does only what changed. Everything it makes lies in .venv and
# .tools beside this repository's README, apart from Debian packages.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TOOLS="${ROOT}/.tools"
VENV="${ROOT}/.venv"
STEP=0
STEPS=5

say() { printf 'setup: %s\n' "$*"; }

step() {
  STEP=$((STEP + 1))
  say "[${STEP}/${STEPS}] $*"
}

as_root() {
  if [[ "$(id -u)" -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "this needs root and there is no sudo: $*" >&2
    return 1
  fi
}

# A stamp holds the hash of what a step was made from; equal means there is nothing to do.
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
fresh() { [[ -f "${TOOLS}/stamps/$1" && "$(<"${TOOLS}/stamps/$1")" == "$2" ]]; }
stamp() {
  mkdir -p "${TOOLS}/stamps"
  printf '%s\n' "$2" >"${TOOLS}/stamps/$1"
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

missing_packages() {
  local wanted=(redis-server haproxy netcat-openbsd openssl ca-certificates iproute2 procps
    shellcheck git curl jq chromium python3 python3-venv
    tcpdump tshark htop net-tools socat rsyslog rsyslog-kafka nftables iptables systemd)
  local package
  for package in "${wanted[@]}"; do
    if ! dpkg-query --show --showformat='${db:Status-Status}\n' "${package}" 2>/dev/null |
      grep --quiet --line-regexp installed; then
      printf '%s\n' "${package}"
    fi
  done
  # A machine with its own newer ones keeps them.
  command -v javac >/dev/null || printf 'default-jdk-headless\n'
  command -v mvn >/dev/null || printf 'maven\n'
  command -v go >/dev/null || printf 'golang-go\n'
}

install_packages() {
  local packages policy=/usr/sbin/policy-rc.d made_policy=no
  mapfile -t packages < <(missing_packages)
  if [[ ${#packages[@]} -eq 0 ]]; then
    say "all Debian packages are there"
    return
  fi
  say "installing: ${packages[*]}"
  # Debian starts servers as it installs them; here nothing may listen that onebox did not start.
  if [[ ! -e "${policy}" ]]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "${policy}" >/dev/null
    as_root chmod 755 "${policy}"
    made_policy=yes
  fi
  local status=0
  {
    retry as_root apt-get update --quiet=2 &&
      retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 \
        --no-install-recommends "${packages[@]}" >/dev/null
  } || status=$?
  if [[ "${made_policy}" == yes ]]; then
    as_root rm -f "${policy}"
  fi
  return "${status}"
}

# Debian's own first: it is what a gateway runs, and it is built with profile-guided optimisation,
# which makes the gateway take half of the CPU that a plain build from source takes.
pick_python() {
  local candidate
  for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    if "${candidate}" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      printf '%s\n' "${candidate}"
      return
    fi
  done
  say "no Python of 3.11 or newer with venv was found" >&2
  return 1
}

install_python() {
  local python wanted
  python="$(pick_python)"
  wanted="$(hash_of "${ROOT}/requirements/dev.txt" "${ROOT}/requirements/build.txt" \
    "${ROOT}/pyproject.toml") ${python} $("${python}" --version)"
  if fresh python "${wanted}" && [[ -x "${VENV}/bin/healthsync" ]]; then
    say "the Python environment is up to date"
    return
  fi
  say "making .venv with $("${python}" --version), ${python}"
  # Made anew from nothing when it is of another Python.
  local last=""
  [[ -f "${TOOLS}/stamps/python" ]] && last="$(<"${TOOLS}/stamps/python")"
  [[ "${last#* }" == "${wanted#* }" ]] || rm -rf "${VENV}"
  [[ -x "${VENV}/bin/python" ]] || "${python}" -m venv "${VENV}"
  retry "${VENV}/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
    --requirement "${ROOT}/requirements/build.txt" --requirement "${ROOT}/requirements/dev.txt"
  "${VENV}/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
    --editable "${ROOT}"
  stamp python "${wanted}"
}

install_jars() { # name, pom
  local name="$1" pom="$2" wanted
  wanted="$(hash_of "${pom}")"
  if fresh "${name}" "${wanted}"; then
    say "${name} is up to date"
    return
  fi
  rm -rf "${TOOLS:?}/${name}"
  retry mvn --quiet --batch-mode --file "${pom}" dependency:copy-dependencies \
    -DoutputDirectory="${TOOLS}/${name}" -DincludeScope=runtime
  stamp "${name}" "${wanted}"
  say "${name}: $(find "${TOOLS}/${name}" -name '*.jar' | wc -l) jars"
}

go_program() { # the go to build with: the machine's, or one fetched as a Go module
  local wanted=1.25.0 have
  have="$(go env GOVERSION | sed 's/^go//')"
  # From 1.21 on, go fetches a newer toolchain by itself (Debian's is told not to, see
  # GOTOOLCHAIN below); older ones are given one.
  if [[ "$(printf '%s\n1.21\n' "${have}" | sort --version-sort | head -n 1)" == 1.21 ]]; then
    command -v go
    return
  fi
  local architecture module directory
  architecture="$(go env GOARCH)"
  module="golang.org/toolchain@v0.0.1-go${wanted}.linux-${architecture}"
  directory="$(cd "${TOOLS}" && GOFLAGS=-mod=mod go mod download -json "${module}" |
    sed -n 's/.*"Dir": "\(.*\)".*/\1/p')"
  # Module archives carry no permission bits; a copy of our own may be given them.
  if [[ ! -x "${TOOLS}/go/bin/go" ]]; then
    rm -rf "${TOOLS:?}/go"
    cp -r "${directory}" "${TOOLS}/go"
    chmod -R u+w "${TOOLS}/go"
    chmod -R a+x "${TOOLS}/go/bin" "${TOOLS}/go/pkg/tool"
  fi
  printf '%s\n' "${TOOLS}/go/bin/go"
}

install_versitygw() {
  local source="${ROOT}/onebox/install/versitygw" wanted
  wanted="$(hash_of "${source}/go.mod" "${source}/go.sum")"
  if fresh versitygw "${wanted}" && [[ -x "${TOOLS}/bin/versitygw" ]]; then
    say "the S3 gateway is up to date"
    return
  fi
  mkdir -p "${TOOLS}/bin"
  local go
  go="$(go_program)"
  (cd "${source}" && GOTOOLCHAIN=auto GOFLAGS=-mod=readonly retry "${go}" build -trimpath \
    -o "${TOOLS}/bin/versitygw" github.com/versity/versitygw/cmd/versitygw)
  stamp versitygw "${wanted}"
}

main() {
  mkdir -p "${TOOLS}/stamps"
  step "Debian packages"
  install_packages
  step "Python environment (hash-locked)"
  install_python
  step "Kafka (Maven)"
  install_jars kafka "${ROOT}/onebox/install/kafka/pom.xml"
  step "HL7's FHIR validator (Maven)"
  install_jars validator "${ROOT}/onebox/validator/pom.xml"
  step "S3 gateway (Go modules; about a minute and a half the first time)"
  install_versitygw
  say "done; the command is .venv/bin/healthsync"
}

main "$@"
