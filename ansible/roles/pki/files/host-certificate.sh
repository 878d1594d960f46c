#!/usr/bin/env bash
# A host's side of its certificates: the key is made here and never leaves; what travels is a
# request out and a certificate in. Nothing that is in use changes until the new certificate was
# found to belong to the new key and to the authority.
#   host-certificate status  FOLDER FILE SANS DAYS_LEFT   prints current, or wanted and why
#   host-certificate request FOLDER FILE SANS NAME        prints a request (PEM)
#   host-certificate install FOLDER FILE OWNER GROUP      certificate on standard input
set -euo pipefail

readonly AUTHORITY="${HS_SERVICE_CA:-/etc/healthsync/service-ca.pem}"

say() { printf '%s\n' "$*"; }
die() {
  printf 'host-certificate: %s\n' "$*" >&2
  exit 1
}

# As openssl prints them: "DNS:a, IP Address:1.2.3.4", sorted, one a line.
names_of() {
  openssl x509 -in "$1" -noout -ext subjectAltName 2>/dev/null | tail --lines=+2 |
    tr ',' '\n' | sed 's/^ *//; s/ *$//; s/^IP Address:/IP:/' | sort
}

status() {
  local folder="$1" name="$2" sans="$3" days="$4"
  local cert="${folder}/${name}.pem"
  if [[ ! -s "${cert}" || ! -s "${folder}/${name}.key" || ! -s "${folder}/${name}.bundle.pem" ]]; then
    say "wanted: there is none"
  elif ! openssl x509 -in "${cert}" -noout -checkend "$((days * 86400))" >/dev/null; then
    say "wanted: it ends within ${days} days"
  elif ! openssl verify -CAfile "${AUTHORITY}" "${cert}" >/dev/null 2>&1; then
    say "wanted: another authority signs now"
  elif [[ "$(names_of "${cert}")" != "$(tr ',' '\n' <<<"${sans}" | sort)" ]]; then
    say "wanted: its names changed"
  else
    say "current"
  fi
}

request() {
  local folder="$1" name="$2" sans="$3" common_name="$4"
  umask 077
  # A request that was never answered keeps its key: a run that was cut short is simply done again.
  if [[ ! -s "${folder}/${name}.key.new" ]]; then
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "${folder}/${name}.key.new"
  fi
  openssl req -new -key "${folder}/${name}.key.new" -subj "/CN=${common_name}" \
    -addext "subjectAltName=${sans}"
}

install_() {
  local folder="$1" name="$2" owner="$3" group="$4" cert
  umask 077
  cert="${folder}/${name}.pem.new"
  cat >"${cert}"
  openssl verify -CAfile "${AUTHORITY}" "${cert}" >/dev/null ||
    die "the certificate of ${name} is not signed by ${AUTHORITY}; nothing was changed"
  [[ "$(openssl x509 -in "${cert}" -noout -pubkey)" == \
    "$(openssl pkey -in "${folder}/${name}.key.new" -pubout)" ]] ||
    die "the certificate of ${name} is of another key; nothing was changed"
  cat "${folder}/${name}.key.new" "${cert}" >"${folder}/${name}.bundle.pem.new"
  chown "${owner}:${group}" "${folder}/${name}".{key,pem,bundle.pem}.new
  chmod 0400 "${folder}/${name}".{key,bundle.pem}.new
  chmod 0444 "${cert}"
  local kind
  for kind in key pem bundle.pem; do
    mv --force "${folder}/${name}.${kind}.new" "${folder}/${name}.${kind}"
  done
}

main() {
  [[ $# -ge 3 ]] || die "status, request or install, a folder, a file; see the head of this file"
  local what="$1"
  shift
  case "${what}" in
    status) status "$@" ;;
    request) request "$@" ;;
    install) install_ "$@" ;;
    *) die "${what}: status, request or install" ;;
  esac
}

main "$@"
