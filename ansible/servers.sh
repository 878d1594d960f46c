#!/usr/bin/env bash
# Packs what onebox/setup.sh brought for the cloud's servers into what the roles kafka and s3 install
# without any network: kafka.tar, the jars from Maven, and versitygw, the S3 gateway from Go
# modules. The same jars give the same bytes.
#   ansible/servers.sh [FOLDER]    default: .tools/servers
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

main() {
  local folder="${1:-${ROOT}/.tools/servers}" part
  for part in kafka bin/versitygw; do
    if [[ ! -e "${ROOT}/.tools/${part}" ]]; then
      printf 'servers: .tools/%s is missing; run make setup first\n' "${part}" >&2
      return 1
    fi
  done
  mkdir -p "${folder}"
  tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rw,go=r \
    --directory="${ROOT}/.tools/kafka" --file="${folder}/kafka.tar.new" \
    --transform='s,^\./,,' --no-recursion --null --files-from=<(
      cd "${ROOT}/.tools/kafka" && find . -name '*.jar' -print0
    )
  mv "${folder}/kafka.tar.new" "${folder}/kafka.tar"
  install --mode=0755 "${ROOT}/.tools/bin/versitygw" "${folder}/versitygw.new"
  mv "${folder}/versitygw.new" "${folder}/versitygw"
  printf 'servers: %s: kafka.tar, versitygw\n' "${folder}"
}

main "$@"
