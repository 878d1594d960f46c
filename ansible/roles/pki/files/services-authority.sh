#!/usr/bin/env bash
# The services' authority, on the machine that Ansible runs on. Its key lies there only, encrypted;
# the passphrase comes in HS_PKI_PASSPHRASE, so that no process list and no file shows it.
#   services-authority init FOLDER TITLE         made once; prints made or kept
#   services-authority sign FOLDER USAGE DAYS    request on standard input, certificate out
set -euo pipefail

say() { printf '%s\n' "$*"; }
die() {
  printf 'services-authority: %s\n' "$*" >&2
  exit 1
}

init() {
  local folder="$1" title="$2"
  umask 077
  if [[ -s "${folder}/services-ca.pem" ]]; then
    [[ -s "${folder}/services-ca.key" ]] || die "${folder}/services-ca.key is gone; restore it"
    say kept
    return
  fi
  mkdir -p "${folder}"
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -aes-256-cbc \
    -pass env:HS_PKI_PASSPHRASE -out "${folder}/services-ca.key.new"
  openssl req -x509 -new -key "${folder}/services-ca.key.new" -passin env:HS_PKI_PASSPHRASE \
    -sha384 -days 3650 -subj "/CN=${title}" -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -out "${folder}/services-ca.pem.new"
  mv "${folder}/services-ca.key.new" "${folder}/services-ca.key"
  chmod 0644 "${folder}/services-ca.pem.new"
  mv "${folder}/services-ca.pem.new" "${folder}/services-ca.pem"
  say made
}

sign() {
  local folder="$1" usage="$2" days="$3" work
  work="$(mktemp --directory)"
  # shellcheck disable=SC2064 # the folder's name is wanted as it is now
  trap "rm -rf '${work}'" EXIT
  cat >"${work}/request.pem"
  openssl req -in "${work}/request.pem" -noout -verify >/dev/null 2>&1 ||
    die "the request is not signed by its own key"
  cat >"${work}/leaf.cnf" <<CONFIG
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = ${usage}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CONFIG
  # Names come from the request, which came over Ansible's own connection to a host of the
  # inventory; everything else is said here.
  local names
  names="$(openssl req -in "${work}/request.pem" -noout -text |
    sed -n '/X509v3 Subject Alternative Name/{n;s/^ *//;s/IP Address:/IP:/g;s/, /,/g;p}')"
  [[ -n "${names}" ]] || die "the request names no host"
  printf 'subjectAltName = %s\n' "${names}" >>"${work}/leaf.cnf"
  openssl x509 -req -in "${work}/request.pem" -CA "${folder}/services-ca.pem" \
    -CAkey "${folder}/services-ca.key" -passin env:HS_PKI_PASSPHRASE -sha384 -days "${days}" \
    -set_serial "0x$(openssl rand -hex 16 | sed 's/^./4/')" \
    -extfile "${work}/leaf.cnf" -extensions leaf 2>"${work}/said" ||
    die "signing failed: $(tail --lines=1 "${work}/said")"
}

main() {
  [[ $# -ge 3 ]] || die "init or sign, and a folder; see the head of this file"
  [[ -n "${HS_PKI_PASSPHRASE:-}" ]] || die "HS_PKI_PASSPHRASE is empty; it comes from the vault"
  local what="$1"
  shift
  case "${what}" in
    init) init "$@" ;;
    sign) sign "$@" ;;
    *) die "${what}: init or sign" ;;
  esac
}

main "$@"
