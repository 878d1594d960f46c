#!/usr/bin/env bash
# A ward of bedside devices: starts one bedside.sh a bed and stops every one of them by its pid.
#
# Law: whatever ends this script short of SIGKILL ends its beds too; the same --seed gives the
# same ward.
set -euo pipefail
export LC_ALL=C

readonly EX_USAGE=64
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
# Seven in ten are well: an ordinary ward.
readonly MIX=(stable stable stable stable stable stable stable desaturation tachycardia fever)

beds=8 host=127.0.0.1 port='' ward=W1 seed=1 interval=1 scenarios='' ca=''
tls=no count=0
pids=()

usage() {
  cat <<'HELP'
Usage: ward.sh --port PORT [options]

Starts one bedside.sh a bed (bed-01, bed-02, ...; record numbers SIM000001, ...) and waits.
Ctrl-C or SIGTERM stops them all.

  --beds N             how many beds, 1 to 999 (8)
  --host HOST          the gateway (127.0.0.1)
  --port PORT          its line port, or line-tls port with --tls
  --tls --ca FILE      TLS 1.3; the gateway's certificate must be signed by FILE
  --ward WARD          ward (W1)
  --seed N             the same seed gives the same ward (1)
  --interval SECONDS   between two lines of a bed (1)
  --count N            lines of each bed (0: go on until stopped)
  --scenarios LIST     SCENARIO:BED,..., such as desaturation:3,tachycardia:5; all others stable
                       (without it: a mix chosen by the seed; see bedside.sh --help for the names)
  --help               this text

Exit codes: 0 done or stopped, 64 wrong options.
HELP
}

fail() {
  printf 'ward.sh: %s\n' "$1" >&2
  exit "$EX_USAGE"
}

parse() {
  while (($#)); do
    case $1 in
      --help) usage; exit 0 ;;
      --tls) tls=yes; shift; continue ;;
      --beds | --host | --port | --ca | --ward | --seed | --interval | --count | --scenarios)
        (($# > 1)) || fail "$1 needs a value"
        ;;
      *) fail "unknown option $1; see --help" ;;
    esac
    case $1 in
      --beds) beds=$2 ;;
      --host) host=$2 ;;
      --port) port=$2 ;;
      --ca) ca=$2 ;;
      --ward) ward=$2 ;;
      --seed) seed=$2 ;;
      --interval) interval=$2 ;;
      --count) count=$2 ;;
      --scenarios) scenarios=$2 ;;
    esac
    shift 2
  done
  [[ $port =~ ^[0-9]{1,5}$ ]] || fail '--port PORT is needed, a number'
  [[ $beds =~ ^[1-9][0-9]{0,2}$ ]] || fail "--beds: 1 to 999, not $beds"
  [[ $seed =~ ^[0-9]{1,6}$ ]] || fail "--seed: a number of up to six digits, not $seed"
  [[ $interval =~ ^[0-9]{1,6}(\.[0-9]+)?$ ]] || fail "--interval: not a number: $interval"
}

declare -A scenario_of=()

assign_scenarios() {
  local bed entry
  if [[ -z $scenarios ]]; then
    for ((bed = 1; bed <= beds; bed++)); do
      # a fixed hash of seed and bed: Knuth's multiplier, upper half of 32 bits
      scenario_of[$bed]=${MIX[(((10#$seed * 1000 + bed) * 2654435761 & 0xffffffff) >> 16) % ${#MIX[@]}]}
    done
    return
  fi
  local -a entries
  IFS=, read -ra entries <<<"$scenarios"
  for entry in "${entries[@]}"; do
    [[ $entry =~ ^([a-z-]+):0*([1-9][0-9]*)$ ]] || fail "--scenarios: not SCENARIO:BED: $entry"
    ((BASH_REMATCH[2] <= beds)) || fail "--scenarios: there is no bed ${BASH_REMATCH[2]}"
    scenario_of[${BASH_REMATCH[2]}]=${BASH_REMATCH[1]}
  done
}

stop_beds() {
  trap '' TERM INT HUP
  local pid
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}

start_beds() {
  local bed label offset_ms
  local fraction='' interval_ms
  if [[ $interval == *.* ]]; then fraction=${interval#*.}; fi
  fraction="${fraction}000"
  interval_ms=${interval%%.*}${fraction:0:3}
  for ((bed = 1; bed <= beds; bed++)); do
    printf -v label '%02d' "$bed"
    # beds start spread over one interval, not all in the same millisecond
    printf -v offset_ms '%d' $((10#$interval_ms * (bed - 1) / beds))
    local -a options=(--host "$host" --port "$port" --bed "$label" --ward "$ward"
      --interval "$interval" --count "$count" --seed $((10#$seed * 1000 + bed))
      --scenario "${scenario_of[$bed]:-stable}"
      --start-after "$((offset_ms / 1000)).$(printf '%03d' $((offset_ms % 1000)))")
    if [[ $tls == yes ]]; then options+=(--tls --ca "$ca"); fi
    "$HERE/bedside.sh" "${options[@]}" &
    pids+=("$!")
  done
}

main() {
  parse "$@"
  assign_scenarios
  trap 'exit 0' TERM INT HUP
  trap stop_beds EXIT
  start_beds
  local pid result=0
  for pid in "${pids[@]}"; do
    wait "$pid" || result=$?
  done
  return "$result"
}

main "$@"
