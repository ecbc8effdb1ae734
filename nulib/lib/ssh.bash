# Runs a command on a machine by ssh over a shared connection.
# usage: ssh.bash run|login|close HOST PORT USER KEY KNOWN_HOSTS SUDO
# KEY is a file or empty; SUDO is yes or no.
#
# `run` reads from stdin the number of words, the words and then the input of the
# command; each word ends with NUL. No word passes through a shell. `login` is
# for a person at a terminal; `close` ends the shared connection.
#
# The connection is held by a process of its own session that has none of the
# caller's descriptors, so that it may outlive the attempt, and that ends a
# minute after its last use. Exit code 255 is ssh's own failure; stderr says what.
set -euo pipefail
verb=$1 host=$2 port=$3 user=$4 key=$5 known_hosts=$6 sudo=$7

for program in ssh flock setsid sha256sum stat mktemp; do
  if ! command -v "$program" >/dev/null; then
    echo "program missing: $program"
    exit 255
  fi >&2
done
folder=/tmp/provisioning-ssh-$EUID
mkdir -m 700 -- "$folder" 2>/dev/null || :
if [[ -L $folder || $(stat -c '%u %a' -- "$folder") != "$EUID 700" ]]; then
  echo "$folder is not a private folder of this user: remove it" >&2
  exit 255
fi
# Who logs in by another key, or trusts other host keys, shares no connection.
shared=$(printf '%s\0' "$key" "$known_hosts" | sha256sum)
socket=$folder/${shared:0:8}-%C

options=(
  -F none
  -o BatchMode=yes
  -o StrictHostKeyChecking=yes
  -o "UserKnownHostsFile=$known_hosts"
  -o GlobalKnownHostsFile=none
  -o UpdateHostKeys=no
  -o PasswordAuthentication=no
  -o ConnectTimeout=10
  -o ServerAliveInterval=10
  -o ServerAliveCountMax=3
  -o ForwardAgent=no
  -o LogLevel=ERROR
  -o "ControlPath=$socket"
  -p "$port"
  -l "$user"
)
if [[ -n $key ]]; then options+=(-o IdentitiesOnly=yes -i "$key"); fi

# What the far shell gets: the same for every command.
read -r -d '' receive <<'FAR' || :
export PATH=$PATH:/usr/sbin:/sbin LANG=C.UTF-8; IFS= read -r -d "" count; words=(); while ((count-- > 0)); do IFS= read -r -d "" word; words+=("$word"); done; exec -- "${words[@]}"
FAR
become=
if [[ $sudo == yes ]]; then become='sudo -n '; fi

# Run by `bash -c`, which holds no script open.
close_all='for open in /proc/self/fd/*; do fd=${open##*/}; if ((fd > 2)); then exec {fd}>&-; fi; done; exec "$@"'

connect() {
  local said
  exec {lock}>"$folder/${shared:0:8}-$(printf '%s\0' "$host" "$port" "$user" | sha256sum | cut -c1-16).lock"
  flock --exclusive --timeout 60 "$lock" || return 0
  if ssh "${options[@]}" -O check -- "$host" 2>/dev/null </dev/null; then
    exec {lock}>&-
    return 0
  fi
  said=$(mktemp)
  # `auto`, not `yes`: what a killed connection has left is removed, where `yes` would hold one more
  # connection that nobody can share and that never ends.
  setsid --wait bash -c "$close_all" connection \
    ssh "${options[@]}" -o ControlMaster=auto -o ControlPersist=60 -N -f -- "$host" </dev/null >/dev/null 2>"$said" || {
    cat -- "$said" >&2
    rm -f -- "$said"
    exit 255
  }
  rm -f -- "$said"
  exec {lock}>&-
}

case $verb in
run)
  connect
  exec ssh "${options[@]}" -T -- "$host" "${become}bash -c '$receive'"
  ;;
login)
  exec ssh "${options[@]}" -o BatchMode=no -t -- "$host"
  ;;
close)
  ssh "${options[@]}" -O exit -- "$host" 2>/dev/null </dev/null || :
  ;;
esac
