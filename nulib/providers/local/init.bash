# Runs as the first process of a local server: makes its file system, moves into
# namespaces that cannot undo it, says `ready PID` on stdout, and becomes its init.
# Read from stdin by `bash -s -- NAME ROOT`, since the server's user may not reach this file.

# Binds a folder of the host into the server, read-only with all mounts below it.
bind_read_only() {
  local target=$root$1 line point
  mount --rbind -- "$1" "$target"
  mapfile -t lines </proc/self/mountinfo
  for line in "${lines[@]}"; do
    read -r _ _ _ _ point _ <<<"${line//\\/\\\\}"
    printf -v point %b "${point//\\/\\0}"
    if [[ $point == "$target" || $point == "$target"/* ]]; then
      mount -o remount,bind,ro,nosuid -- "$point"
    fi
  done
}

make_dev() {
  local node
  mount -t tmpfs -o mode=755,nosuid,size=64k dev "$root/dev"
  for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind -- "/dev/$node" "$root/dev/$node"
  done
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,nosuid,noexec devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
}

# The init: collects orphans; at TERM it ends all others, with four seconds' grace.
read -r -d '' init <<'INIT'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
shut_down() {
  trap "" TERM
  kill -TERM -1
  for ((turn = 0; turn < 200; turn++)); do
    processes=(/proc/[0-9]*)
    if ((${#processes[@]} <= 1)); then break; fi
    sleep 0.02
  done
  exit 0
}
trap shut_down TERM
while :; do
  sleep infinity &
  wait "$!"
done
INIT

# In the inner namespaces, where the mounts cannot be changed: first without
# any right, until a process outside has written whom this user is here.
read -r -d '' inside <<'INSIDE'
until read -r _ </proc/self/uid_map && read -r _ </proc/self/gid_map; do sleep 0.002; done 2>/dev/null
# The rights of root come with the next program. Entering the namespaces has
# undone that the server ends with its keeper.
exec setpriv --pdeathsig KILL bash -c "$2" inside "$@"
INSIDE

read -r -d '' start <<'START'
set -eu
hostname -- "$1"
if command -v ip >/dev/null; then ip link set lo up || :; fi
printf 'ready %s\n' "$4"
exec </dev/null >/dev/null 2>&1
exec -c -a init bash -c "$3" init
START

# Says who is who in the user namespace that the first process has entered. Runs outside of it.
map_users() {
  local own=$1 count=$2 turn
  for ((turn = 0; turn < 2000; turn++)); do
    if [[ $(readlink /proc/1/ns/user) != "$own" ]]; then
      printf '0 0 %s\n' "$count" >/proc/1/gid_map
      printf '0 0 %s\n' "$count" >/proc/1/uid_map
      return
    fi
    sleep 0.002
  done
}

main() {
  set -eu
  umask 022
  local name=$1 root pid _ path count
  cd -- "$2"
  root=$(pwd -P)
  # The host's /proc is still here, so this is the number that the host knows.
  read -r pid _ </proc/self/stat

  # Only a mount point can become the root.
  mount --bind -- "$root" "$root"
  mount -o remount,bind,nosuid,nodev -- "$root"
  cd -- "$root"
  for path in /usr /bin /sbin /lib*; do
    if [[ -d $path && ! -L $path ]]; then bind_read_only "$path"; fi
  done
  make_dev
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  mount -t tmpfs -o mode=755,nosuid,nodev run "$root/run"
  mkdir "$root/run/host" "$root/run/lock"
  pivot_root . run/host
  cd /
  umount -l /run/host
  rmdir /run/host

  read -r _ _ count </proc/self/uid_map
  map_users "$(readlink /proc/self/ns/user)" "$count" >/dev/null &
  exec unshare --user --mount --uts --ipc --net bash -c "$inside" inside "$name" "$start" "$init" "$pid"
}
main "$@"
exit 1
