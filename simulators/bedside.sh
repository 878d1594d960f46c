#!/usr/bin/env bash
# One bedside device: sends the line protocol through nc, or through openssl with --tls.
#
# Law: the same --seed gives the same values; one child at a time, and none is left behind;
# nothing is written to disk. A device has no memory: a line that meets a dead connection is lost,
# as it is with a real one.
set -euo pipefail
export LC_ALL=C TZ=UTC

readonly PATIENT_LINES=30 # the patient goes with the first line of a connection and every 30th
readonly BACKOFF_MAX_MS=10000
readonly SETTLE_MS=100 # a refused connection is known by then
readonly CLOSE_MAX_MS=4000
readonly EX_USAGE=64 EX_UNAVAILABLE=69
readonly FIRST_NAMES=(Ada Bo Cleo Dot Eli Fay Gus Hal Ivy Jo)
readonly LAST_NAMES=(Sample Example Specimen Fictive Placeholder Madeup Nobody)
readonly SCENARIOS='stable desaturation tachycardia fever sensor-off cable-pulled'

host=127.0.0.1 port='' device='' bed=01 ward=W1 mrn='' name='' dob='' sex=''
interval_ms=1000 start_after_ms=0 count=0 once=no scenario=stable seed='' tls=no ca=''
peer='' peer_pid='' sleeper_pid=''

usage() {
  cat <<'HELP'
Usage: bedside.sh --port PORT [options]

A bedside device that sends one line each interval:
  device=bed-03 mrn=SIM000003 name="Cleo Specimen" bed=03 ward=W1 heart_rate=78, oxygen=95%, ...

The least a gateway takes needs no script at all:
  printf 'heart_rate=78, oxygen=95%%\n' | nc -N 127.0.0.1 7010

Where to
  --host HOST          the gateway (127.0.0.1)
  --port PORT          its line port, or line-tls port with --tls
  --tls --ca FILE      TLS 1.3 through openssl; the gateway's certificate must be signed by FILE
Who
  --bed BED            bed (01)
  --ward WARD          ward (W1)
  --device NAME        the device's own name (bed-BED)
  --mrn MRN            medical record number (SIM and six digits, from the bed)
  --name NAME          patient's name (made up, from the bed)
  --dob YYYY-MM-DD     date of birth (made up, from the seed)
  --sex SEX            female, male, other or unknown (made up, from the seed)
How
  --interval SECONDS   between two lines, such as 1 or 0.25 (1)
  --start-after SECONDS  wait before the first line (0)
  --count N            stop after N lines (0: go on until stopped)
  --once               one line and out, for cron; exit 69 when the gateway is not there
  --scenario NAME      stable, or from the 10th line on and for 60 of every 120 lines:
                         desaturation   oxygen falls by 1 a line to 84 %
                         tachycardia    heart rate climbs by 5 a line to 150
                         fever          temperature climbs to 39.6 C
                         sensor-off     oxygen and pulse come without a value
                         cable-pulled   no lines at all, then a new connection
                       (with --once: at its height)
  --seed N             the same seed gives the same values (random)
  --help               this text

Exit codes: 0 done or stopped, 64 wrong options, 69 gateway not there (--once).
HELP
}

fail() {
  printf 'bedside.sh: %s\n' "$2" >&2
  exit "$1"
}

# Set $1 to the milliseconds of a decimal number of seconds, $2.
to_ms() {
  [[ $2 =~ ^([0-9]{1,6})(\.([0-9]{1,3})[0-9]*)?$ ]] || fail "$EX_USAGE" "not a number of seconds: $2"
  local thousandths=${BASH_REMATCH[3]:-0}00
  printf -v "$1" '%d' $((10#${BASH_REMATCH[1]} * 1000 + 10#${thousandths:0:3}))
}

parse() {
  while (($#)); do
    local value=${2-}
    case $1 in
      --help) usage; exit 0 ;;
      --once) once=yes; shift; continue ;;
      --tls) tls=yes; shift; continue ;;
      --host | --port | --device | --bed | --ward | --mrn | --name | --dob | --sex | --interval | \
        --start-after | --count | --scenario | --seed | --ca)
        (($# > 1)) || fail "$EX_USAGE" "$1 needs a value"
        ;;
      *) fail "$EX_USAGE" "unknown option $1; see --help" ;;
    esac
    [[ $value != *[$'\n\r"']* ]] || fail "$EX_USAGE" "$1: no line breaks and quotation marks"
    case $1 in
      --host) host=$value ;;
      --port) port=$value ;;
      --device) device=$value ;;
      --bed) bed=$value ;;
      --ward) ward=$value ;;
      --mrn) mrn=$value ;;
      --name) name=$value ;;
      --dob) dob=$value ;;
      --sex) sex=$value ;;
      --interval) to_ms interval_ms "$value" ;;
      --start-after) to_ms start_after_ms "$value" ;;
      --count) count=$value ;;
      --scenario) scenario=$value ;;
      --seed) seed=$value ;;
      --ca) ca=$value ;;
    esac
    shift 2
  done
  [[ $port =~ ^[0-9]{1,5}$ ]] || fail "$EX_USAGE" '--port PORT is needed, a number'
  [[ $count =~ ^[0-9]{1,9}$ ]] || fail "$EX_USAGE" "--count: not a number: $count"
  [[ " $SCENARIOS " == *" $scenario "* ]] || fail "$EX_USAGE" "--scenario: one of $SCENARIOS"
  [[ $seed =~ ^[0-9]{0,9}$ ]] || fail "$EX_USAGE" "--seed: not a number of up to nine digits: $seed"
  ((interval_ms > 0)) || fail "$EX_USAGE" '--interval: more than 0 is needed'
  local word
  for word in "$device" "$bed" "$ward" "$mrn" "$dob" "$sex"; do
    [[ $word != *[[:space:],=]* ]] || fail "$EX_USAGE" "no spaces, commas and = in: $word"
  done
  if [[ $tls == yes ]]; then
    [[ -r $ca ]] || fail "$EX_USAGE" '--tls needs --ca FILE, readable'
  fi
}

# --- values: an own generator, because bash's changed between versions -------------------------

state=0

# Set $1 to a number of 0..$2-1.
roll() {
  state=$(((state * 1103515245 + 12345) & 0x7fffffff))
  printf -v "$1" '%d' $(((state >> 8) % $2))
}

# Set $1 to a step of -1, 0 or 1 from $2, kept within $3..$4.
walk() {
  local step
  roll step 3
  local next=$(($2 + step - 1))
  ((next < $3)) && next=$3
  ((next > $4)) && next=$4
  printf -v "$1" '%d' "$next"
}

begin_patient() {
  state=$(((10#${seed:-$((EPOCHSECONDS ^ $$))} * 2654435761 + 97) & 0x7fffffff))
  local drawn
  roll heart_rate 20 && heart_rate=$((heart_rate + 66))
  roll oxygen 4 && oxygen=$((oxygen + 95))
  roll resp 5 && resp=$((resp + 13))
  roll celsius10 7 && celsius10=$((celsius10 + 365))
  roll systolic 20 && systolic=$((systolic + 110))
  roll drawn 60 && dob=${dob:-$((1930 + drawn))-0$((drawn % 9 + 1))-1$((drawn % 10))}
  roll drawn 2 && sex=${sex:-$( ((drawn)) && echo female || echo male)}
  local digits=${bed//[!0-9]/}
  digits=$((10#0${digits:0:6}))
  device=${device:-bed-$bed}
  printf -v mrn '%s' "${mrn:-$(printf 'SIM%06d' "$digits")}"
  name=${name:-"${FIRST_NAMES[digits % ${#FIRST_NAMES[@]}]} ${LAST_NAMES[digits % ${#LAST_NAMES[@]}]}"}
}

# Tell whether the scenario's event runs at sample $1, and set `into` to how many samples long.
into=0
in_event() {
  [[ $scenario != stable ]] || return 1
  into=$(($1 % 120 - 10))
  [[ $once == no ]] || into=40
  ((into >= 0 && into < 60))
}

# Set `values` to the fields of sample $1.
measure() {
  walk heart_rate "$heart_rate" 58 96
  walk oxygen "$oxygen" 94 99
  walk resp "$resp" 11 19
  walk celsius10 "$celsius10" 362 374
  walk systolic "$systolic" 104 136
  local hr=$heart_rate spo2=$oxygen temp=$celsius10 pulse=$heart_rate
  if in_event "$1"; then
    case $scenario in
      desaturation) spo2=$((oxygen - into > 84 ? oxygen - into : 84)) ;;
      tachycardia) hr=$((heart_rate + 5 * into < 150 ? heart_rate + 5 * into : 150)) pulse=$hr ;;
      fever) temp=$((celsius10 + into < 396 ? celsius10 + into : 396)) ;;
      sensor-off) spo2='' pulse='' ;;
      cable-pulled) ;;
    esac
  fi
  values="heart_rate=$hr, oxygen=${spo2:+$spo2%}, pulse=$pulse, resp=$resp,"
  values+=" temperature=$((temp / 10)).$((temp % 10))C, bp=$systolic/$((systolic * 63 / 100))"
}

# Set `stamp` to the time now, such as 2026-11-23T10:00:00.123Z, without starting a process.
now_stamp() {
  local now=$EPOCHREALTIME
  printf -v stamp '%(%Y-%m-%dT%H:%M:%S)T.%sZ' "${now%.*}" "${now:11:3}"
}

# --- the connection --------------------------------------------------------------------------

nap_ms() {
  (($1 > 0)) || return 0
  local seconds
  printf -v seconds '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
  sleep "$seconds" &
  sleeper_pid=$!
  wait "$sleeper_pid" || true # unlike a sleep in front, wait lets a signal's trap run at once
  sleeper_pid=''
}

connect() {
  local verify=-verify_hostname
  [[ $host =~ ^[0-9.]+$|: ]] && verify=-verify_ip
  local -a client=(nc -N)
  [[ $once == no ]] || client+=(-w 2)
  client+=("$host" "$port")
  if [[ $tls == yes ]]; then
    client=(openssl s_client -quiet -no_ign_eof -verify_quiet -verify_return_error -tls1_3
      -ciphersuites TLS_AES_256_GCM_SHA384 -CAfile "$ca" "$verify" "$host" -connect "$host:$port")
  fi
  # openssl talks on stderr even when all is well; what matters is said below
  exec {peer}> >(exec "${client[@]}" >/dev/null 2>&1)
  peer_pid=$!
  nap_ms "$SETTLE_MS"
}

connected() {
  [[ -n $peer_pid ]] && kill -0 "$peer_pid" 2>/dev/null
}

# Close in order: end of input, then wait, but not for ever, until the client has sent everything
# and the gateway has closed too. Returns the client's exit code; a gateway that will not close is
# no failure, but with --once nc ends by itself in 2 s and openssl at once: who is left then never
# reached anyone.
disconnect() {
  [[ -n $peer_pid ]] || return 0
  local left=$peer_pid result=0 waited_ms=0 nap=5
  exec {peer}>&-
  while connected && ((waited_ms < CLOSE_MAX_MS)); do
    nap_ms "$nap"
    ((waited_ms += nap, nap = 40))
  done
  peer_pid=''
  if kill "$left" 2>/dev/null; then
    wait "$left" || true
    [[ $once == no ]]
    return
  fi
  wait "$left" || result=$?
  return "$result"
}

leave() {
  trap '' TERM INT HUP
  if [[ -n $sleeper_pid ]]; then kill "$sleeper_pid" 2>/dev/null || true; fi
  if [[ -n $peer_pid ]]; then
    kill "$peer_pid" 2>/dev/null || true
    wait "$peer_pid" 2>/dev/null || true
  fi
  exit 0
}

absent() {
  printf 'no gateway at %s:%s' "$host" "$port"
  if [[ $tls == yes ]]; then printf ', or its certificate is not signed by %s' "$ca"; fi
}

# --- the loop --------------------------------------------------------------------------------

# Send what was measured as line $1 of this connection; fails when the peer is gone.
send() {
  local head="device=$device" stamp
  if (($1 % PATIENT_LINES == 0)); then
    head+=" mrn=$mrn name=\"$name\" dob=$dob sex=$sex bed=$bed ward=$ward"
  fi
  now_stamp
  # the braces silence bash's own word about a broken pipe
  { printf '%s %s time=%s\n' "$head" "$values" "$stamp" >&"$peer"; } 2>/dev/null
}

send_once() {
  measure 0
  connect
  if ! connected || ! send 0 || ! disconnect; then
    fail "$EX_UNAVAILABLE" "$(absent)"
  fi
}

run() {
  local sample=0 on_connection=0 backoff_ms=250 due_ms
  due_ms=$((${EPOCHREALTIME/./} / 1000 + start_after_ms))
  while ((count == 0 || sample < count)); do
    nap_ms $((due_ms - ${EPOCHREALTIME/./} / 1000))
    if [[ $scenario == cable-pulled ]] && in_event "$sample"; then
      disconnect || true
      ((sample += 1, due_ms += interval_ms))
      continue
    fi
    if ! connected; then
      disconnect || true
      connect
      on_connection=0
      if ! connected; then
        printf 'bedside.sh: %s; trying again\n' "$(absent)" >&2
        nap_ms "$backoff_ms"
        backoff_ms=$((backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS))
        due_ms=$((${EPOCHREALTIME/./} / 1000))
        continue
      fi
      due_ms=$((${EPOCHREALTIME/./} / 1000))
    fi
    measure "$sample"
    if send "$on_connection"; then backoff_ms=250; fi
    ((sample += 1, on_connection += 1, due_ms += interval_ms))
  done
  disconnect || true
}

main() {
  parse "$@"
  trap leave TERM INT HUP
  trap '' PIPE # a peer that is gone shows as a failed write, not as our death
  begin_patient
  if [[ $once == yes ]]; then send_once; else run; fi
}

main "$@"
