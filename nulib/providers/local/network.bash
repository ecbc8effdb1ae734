# The network of local servers: a bridge for each network of an infra, which has
# the network's first address, and a pair of interfaces for each server. Servers
# of one network and the host reach each other; nothing is routed further.
# Sourced by server.bash, which is where $dir, $hash, write, whole_host and fail come from.

# Whether this process may make networks: the host's root, with the right to (CAP_NET_ADMIN) and the program ip.
may_network() {
  local rights
  whole_host && command -v ip >/dev/null || return
  rights=$(awk '/^CapEff:/ { print $2 }' /proc/self/status)
  (((16#$rights >> 12) & 1))
}

to_number() {
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  echo "$(((a << 24) + (b << 16) + (c << 8) + d))"
}

to_address() { echo "$(($1 >> 24 & 255)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))"; }

# Runs a command under the lock of all networks of the infra.
locked() {
  exec {network_lock}>"$(dirname -- "$dir")/.locks/.network"
  flock --exclusive --timeout 60 "$network_lock" || fail 75 'another server holds the network for longer than 60 seconds'
  local code=0
  "$@" || code=$?
  exec {network_lock}>&-
  return "$code"
}

# Chooses the lowest free address of network NAME with the block CIDR.
take_address() { locked choose_address "$1" "$2"; }

choose_address() {
  local base prefix number last bridge taken
  base=$(to_number "${2%/*}") prefix=${2#*/}
  base=$((base & (0xffffffff << (32 - prefix)) & 0xffffffff))
  last=$((base + (1 << (32 - prefix)) - 2))
  bridge=$(printf %s "$(dirname -- "$dir")/$1" | sha256sum)
  taken=" $(cat -- "$dir"/../*/address 2>/dev/null | cut -d/ -f1 | tr '\n' ' ') "
  for ((number = base + 2; number <= last; number++)); do
    if [[ $taken != *" $(to_address "$number") "* ]]; then
      write "$dir/address" "$(to_address "$number")/$prefix $(to_address $((base + 1))) pv-${bridge:0:8}"
      return
    fi
  done
  fail 71 "network $1 ($2) has no address left"
}

# Gives the server whose init is PID its interface.
attach_network() {
  [[ -e $dir/address ]] && may_network || return 0
  locked connect "$1" 2>>"$dir/log"
}

connect() {
  local address gateway bridge taken pid=$1
  read -r address gateway bridge <"$dir/address"
  # Each step by itself: a kill may have left a bridge without address, or down.
  if ! ip link show dev "$bridge" >/dev/null 2>&1; then
    taken=$(ip -o -4 address show to "$gateway/${address#*/}" | awk 'NR == 1 { print $2 " (" $4 ")" }')
    if [[ -n $taken ]]; then
      echo "its block of addresses is in use on this host, by $taken: give it another cidr" >&2
      return 1
    fi
    ip link add name "$bridge" type bridge || return
  fi
  ip address replace "$gateway/${address#*/}" dev "$bridge" || return
  ip link set dev "$bridge" up || return
  ip link delete dev "pv$hash" 2>/dev/null || :
  ip link add name "pv$hash" type veth peer name eth0 netns "$pid" || return
  ip link set dev "pv$hash" master "$bridge" up || return
  nsenter --target "$pid" --net bash -c '
    ip address add "$0" dev eth0 && ip link set dev eth0 up && ip route add default via "$1"' "$address" "$gateway"
}

# Takes the server's interface away, and the bridge with the last one.
leave_network() {
  [[ -e $dir/address ]] && may_network || return 0
  locked disconnect || :
}

disconnect() {
  local bridge _
  read -r _ _ bridge <"$dir/address"
  ip link delete dev "pv$hash" 2>/dev/null || :
  if [[ -z $(ip -o link show master "$bridge" 2>/dev/null) ]]; then
    ip link delete dev "$bridge" 2>/dev/null || :
  fi
}
