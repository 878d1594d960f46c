#!/usr/bin/env bash
# Joins the containers of a scenario by a network of their own: a switch in a network namespace that
# has nothing else, and one cable from it to each container. The machine's own network is not
# touched, and nothing of it can be reached.
#   switch.sh up   SCENARIO HOST=ADDRESS/PREFIX...
#   switch.sh down SCENARIO
set -euo pipefail

readonly RUNNING="${HEALTHSYNC_RUNNING:?podman-env.sh sets it}"

die() {
  printf 'switch: %s\n' "$*" >&2
  exit 1
}

# A namespace's name is the machine's: another folder may run the same scenario.
named() {
  printf 'healthsync-%s-%s\n' "$(basename "${RUNNING}")" "$1"
}

up() {
  local namespace pair host pid number=0
  namespace="$(named "$1")"
  shift
  ip netns add "${namespace}"
  ip -n "${namespace}" link add switch type bridge
  ip -n "${namespace}" link set switch up
  for pair in "$@"; do
    host="${pair%%=*}" number=$((number + 1))
    pid="$(cat "${RUNNING}/hosts/${host}.pid")"
    # Both ends are made where they belong: none is ever in the machine's own namespace.
    ip -n "${namespace}" link add "port-${number}" type veth peer name eth0 netns "${pid}"
    ip -n "${namespace}" link set "port-${number}" master switch up
    nsenter --target "${pid}" --net ip address add "${pair#*=}" dev eth0
    nsenter --target "${pid}" --net ip link set eth0 up
  done
}

down() {
  local namespace
  namespace="$(named "$1")"
  if ip netns list | grep --quiet --word-regexp "${namespace}"; then
    ip netns delete "${namespace}"
  fi
}

main() {
  [[ $# -ge 2 ]] || die "up or down, and a scenario; see the head of this file"
  local what="$1"
  shift
  case "${what}" in
    up) up "$@" ;;
    down) down "$@" ;;
    *) die "${what}: up or down" ;;
  esac
}

main "$@"
