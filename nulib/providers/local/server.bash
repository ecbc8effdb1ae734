# Changes one local server. Runs under the server's lock.
# usage: server.bash create DIR NAME RECORD CPUS MEMORY_GB NETWORK CIDR
#        server.bash start|stop|restart|delete|keep DIR NAME
#
# DIR/server.json  the server's record; written last, so without it there is no server
# DIR/root/        its files; their owner is the host user that its processes run as
# DIR/keeper       pid, start time and boot id of the process that holds the namespaces
# DIR/init         the same of its init, whose namespaces `nsenter` joins
# DIR/limits       CPUs and GB of memory; DIR/cgroups the control groups that hold it to them
# DIR/address      address/prefix, gateway and bridge, where it has a network
# DIR/log          what the last start said
#
# Prints yes if it changed something, no if not. Exit codes: 64 not found,
# 69 user namespaces are forbidden, 70 another failure, 71 no address is left,
# 72 the network cannot be made, 75 another holds it; stderr says what.
# It is bash because POSIX sh cannot close descriptors above 9.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
verb=$1 dir=$2 name=$3
here=$(dirname -- "${BASH_SOURCE[0]}")
# What names the server in places that the whole host shares.
hash=$(printf %s "$dir" | sha256sum)
hash=${hash:0:8}

# As root a server runs as this otherwise unused user, so that its root is
# nobody on the host.
server_uid=1879048192
# As many users as the server has then: its root, and those behind it.
server_uids=65536

# Run by `bash -c`, which holds no script open: ends with none of the caller's descriptors.
close_all='for open in /proc/self/fd/*; do fd=${open##*/}; if ((fd > 2)); then exec {fd}>&-; fi; done; exec "$@"'

fail() {
  local code=$1
  shift
  printf '%s\n' "$*" >&2
  exit "$code"
}

# Prints pid, start time and boot id of a process; fails if it has ended.
identity() {
  local stat=
  # To the end of the file: a program's name may contain a line break.
  read -r -d '' stat 2>/dev/null <"/proc/$1/stat" || [[ -n $stat ]] || return 1
  set -- "$1" ${stat##*) }
  [[ $2 != [ZX] ]] || return 1
  printf '%s %s %s\n' "$1" "${21}" "$(</proc/sys/kernel/random/boot_id)"
}

# Whether the process recorded in a file lives.
alive() {
  local recorded=
  read -r recorded 2>/dev/null <"$1" || return 1
  [[ -n $recorded && $(identity "${recorded%% *}") == "$recorded" ]]
}

write() {
  printf '%s\n' "$2" >"$1.new"
  sync -- "$1.new"
  mv -fT -- "$1.new" "$1"
}

# Waits at most COUNT times 20 ms until neither keeper nor init lives.
gone_within() {
  local turn
  for ((turn = 0; turn < $1; turn++)); do
    if ! alive "$dir/init" && ! alive "$dir/keeper"; then return 0; fi
    sleep 0.02
  done
  return 1
}

end_processes() {
  local pid rest child
  if alive "$dir/init"; then
    read -r pid rest <"$dir/init"
    kill -TERM "$pid" 2>/dev/null || :
    if gone_within 250; then
      leave_network
      remove_limits
      return 0
    fi
    kill -KILL "$pid" 2>/dev/null || :
  fi
  if gone_within 5; then
    leave_network
    remove_limits
    return 0
  fi
  if alive "$dir/keeper"; then
    # Its only child is an init; with it end all processes of the server.
    read -r pid rest <"$dir/keeper"
    for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do
      kill -KILL "$child" 2>/dev/null || :
    done
    kill -KILL "$pid" 2>/dev/null || :
  fi
  gone_within 500 || fail 70 "the processes of server $name do not end"
  leave_network
  remove_limits
}

remove() {
  end_processes
  rm -f -- "$dir/server.json"
  # A folder that the server made unreadable stops `rm` of a user, not of root.
  rm -rf -- "$dir" 2>/dev/null || { chmod -R u+rwX -- "$dir" && rm -rf -- "$dir"; }
}

# The files of a new server; the host's programs are bound into it at each start.
make_root() {
  local path
  umask 022
  mkdir -p -- "$dir/root"
  chmod 700 -- "$dir"
  (
    cd -- "$dir/root"
    mkdir dev etc home media mnt opt proc root run srv sys tmp usr var
    mkdir var/cache var/lib var/log var/spool var/tmp
    chmod 1777 tmp var/tmp
    chmod 700 root
    ln -s ../run var/run
    for path in /bin /sbin /lib*; do
      if [[ -L $path ]]; then ln -s "$(readlink "$path")" ".$path"; elif [[ -d $path ]]; then mkdir ".$path"; fi
    done
    for path in alternatives ld.so.cache ld.so.conf ld.so.conf.d localtime nsswitch.conf os-release protocols services; do
      cp -a --no-preserve=ownership -- "/etc/$path" "etc/$path" 2>/dev/null || :
    done
    printf '%s\n' "$name" >etc/hostname
    printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >etc/hosts
    # The users that the host's programs expect, and none of its people.
    printf 'root:x:0:0:root:/root:/bin/bash\n' >etc/passwd
    printf 'root:x:0:\n' >etc/group
    awk -F: '$3 > 0 && ($3 < 1000 || $3 == 65534)' /etc/passwd >>etc/passwd
    awk -F: '$3 > 0 && ($3 < 1000 || $3 == 65534) { print $1 ":x:" $3 ":" }' /etc/group >>etc/group
    : >etc/shadow
    chmod 600 etc/shadow
  )
  if whole_host; then chown -hR "$server_uid:$server_uid" "$dir/root"; fi
}

# Whether this is the host's root, who may give a server many users, a network and limits.
whole_host() { ((EUID == 0)) && [[ $(</proc/self/uid_map) == *4294967295 ]]; }

# Prints the words that become the user of the server before a command.
become() {
  local owner
  owner=$(stat -c %u -- "$dir/root")
  if [[ $owner != "$EUID" ]]; then printf '%s\n' setpriv "--reuid=$owner" "--regid=$owner" --clear-groups --; fi
}

launch() {
  local user said pid ready
  mapfile -t user < <(become)
  "${user[@]}" unshare --user --map-root-user true 2>/dev/null \
    || fail 69 "the kernel does not let user $(stat -c %u -- "$dir/root") make user namespaces"
  : >"$dir/log"
  exec {ready}< <(exec setsid bash "$here/server.bash" keep "$dir" "$name" </dev/null 2>>"$dir/log")
  read -r -t 30 -u "$ready" said || said=
  exec {ready}<&-
  if [[ $said != ready\ * ]] || ! pid=$(identity "${said#ready }"); then
    end_processes
    fail 70 "server $name did not start: $(tail -n 3 -- "$dir/log")"
  fi
  if ! attach_network "${pid%% *}"; then
    end_processes
    fail 72 "server $name has no network: $(tail -n 3 -- "$dir/log")"
  fi
  write "$dir/init" "$pid"
}

# Becomes the process that holds the namespaces. It records itself while it
# still holds the server's lock: whoever takes the lock next knows whom to end.
keep() {
  local user init
  write "$dir/keeper" "$(identity "$$")"
  init=$(<"$here/init.bash")
  mapfile -t user < <(become)
  local container=(unshare --pid --fork --kill-child --mount bash -s --)
  cd /
  if ((${#user[@]} == 0)); then
    exec bash -c "$close_all" keeper unshare --user --map-root-user "${container[@]}" "$name" "$dir/root" <<<"$init"
  fi
  limit
  (map_users "$$" &)
  # The server's user may not reach DIR: show it the files at /tmp, in a mount namespace of its own.
  exec bash -c "$close_all" keeper unshare --mount bash -c 'mount --bind -- "$0" /tmp && exec "$@"' \
    "$dir/root" "${user[@]}" unshare --user bash -c \
    'until read -r _ </proc/self/uid_map && read -r _ </proc/self/gid_map; do sleep 0.002; done 2>/dev/null; exec "$@"' \
    mapped "${container[@]}" "$name" /tmp <<<"$init"
}

# Gives the user namespace that a process enters its users. Only the host's root may give more than one.
map_users() {
  local own turn
  own=$(readlink /proc/self/ns/user)
  for ((turn = 0; turn < 2000; turn++)); do
    case $(readlink "/proc/$1/ns/user") in
    '') return ;;
    "$own") sleep 0.002 ;;
    *)
      printf '0 %s %s\n' "$server_uid" "$server_uids" >"/proc/$1/gid_map"
      printf '0 %s %s\n' "$server_uid" "$server_uids" >"/proc/$1/uid_map"
      return
      ;;
    esac
  done
}

# Puts this process, and with it the server, into control groups of the plan's
# size. A host without them sets no limit; that is said in the log.
limit() {
  local cpus memory group=provisioning/$name.$hash root=/sys/fs/cgroup
  local -a groups=()
  read -r cpus memory <"$dir/limits" || return 0
  if [[ " $(cat "$root/cgroup.controllers" 2>/dev/null) " == *' memory '* ]]; then
    {
      echo '+cpu +memory' >"$root/cgroup.subtree_control"
      mkdir -p -- "$root/provisioning"
      echo '+cpu +memory' >"$root/provisioning/cgroup.subtree_control"
      mkdir -p -- "$root/$group"
      echo "$((memory << 30))" >"$root/$group/memory.max"
      echo "$((cpus * 100000)) 100000" >"$root/$group/cpu.max"
      groups+=("$root/$group")
    } 2>/dev/null || :
  else
    {
      mkdir -p -- "$root/memory/$group"
      echo "$((memory << 30))" >"$root/memory/$group/memory.limit_in_bytes"
      groups+=("$root/memory/$group")
    } 2>/dev/null || :
    {
      mkdir -p -- "$root/cpu/$group"
      echo "$((cpus * 100000))" >"$root/cpu/$group/cpu.cfs_quota_us"
      groups+=("$root/cpu/$group")
    } 2>/dev/null || :
  fi
  rm -f -- "$dir/cgroups"
  if ((${#groups[@]} == 0)); then
    echo "no control groups: the plan's limits are not set"
    return
  fi >&2
  printf '%s\n' "${groups[@]}" >"$dir/cgroups"
  for group in "${groups[@]}"; do echo "$$" >"$group/cgroup.procs"; done
}

remove_limits() {
  local group turn
  [[ -e $dir/cgroups ]] || return 0
  while read -r group; do
    # A process that has ended may still be counted for a moment.
    for ((turn = 0; turn < 100; turn++)); do
      if rmdir -- "$group" 2>/dev/null || [[ ! -e $group ]]; then break; fi
      sleep 0.01
    done
  done <"$dir/cgroups"
  rm -f -- "$dir/cgroups"
}

# shellcheck source=network.bash
source "$here/network.bash"

case $verb in
create)
  if [[ -e $dir/server.json ]]; then
    echo no
    exit
  fi
  if [[ -e $dir ]]; then remove; fi
  trap 'remove' EXIT
  make_root
  write "$dir/limits" "$5 $6"
  if [[ -n $8 ]] && may_network; then take_address "$7" "$8"; fi
  launch
  write "$dir/server.json" "$4"
  trap - EXIT
  echo yes
  ;;
start)
  [[ -e $dir/server.json ]] || fail 64 "there is no server $name"
  if alive "$dir/init"; then
    echo no
    exit
  fi
  end_processes
  launch
  echo yes
  ;;
restart)
  [[ -e $dir/server.json ]] || fail 64 "there is no server $name"
  end_processes
  launch
  echo yes
  ;;
stop)
  [[ -e $dir/server.json ]] || fail 64 "there is no server $name"
  if ! alive "$dir/init" && ! alive "$dir/keeper"; then
    echo no
    exit
  fi
  end_processes
  echo yes
  ;;
delete)
  if [[ ! -e $dir ]]; then
    echo no
    exit
  fi
  remove
  echo yes
  ;;
keep) keep ;;
*) fail 70 "no such verb: $verb" ;;
esac
