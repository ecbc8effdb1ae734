# Runs a command inside a running server. usage: enter.bash DIR PID PROGRAM [ARGUMENT...]
# PID is the server's init. The command runs as the server's root, in /root,
# with a small environment and no descriptor but 0, 1 and 2.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
dir=$1 pid=$2
shift 2

owner=$(stat -c %u -- "$dir/root")
user=()
if [[ $owner != "$EUID" ]]; then user=(setpriv "--reuid=$owner" "--regid=$owner" --clear-groups --); fi
read -r keeper _ <"$dir/keeper"

# What runs in the server counts against its limits, whoever started it.
if [[ -e $dir/cgroups ]]; then
  while read -r group; do
    echo "$$" >"$group/cgroup.procs" || :
  done <"$dir/cgroups"
fi

# Run by `bash -c`, which holds no script open.
close_all='for open in /proc/self/fd/*; do fd=${open##*/}; if ((fd > 2)); then exec {fd}>&-; fi; done; exec "$@"'

# Two steps: the namespace of processes belongs to the user namespace that made
# the mounts, all else to the one inside it, which may not undo them.
exec bash -c "$close_all" enter "${user[@]}" \
  nsenter --target "$keeper" --user --preserve-credentials -- \
  nsenter --target "$pid" --user --preserve-credentials --mount --uts --ipc --net --pid -- \
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LANG=C.UTF-8 ${TERM:+"TERM=$TERM"} \
  bash -c 'cd /root && exec -- "$@"' bash "$@"
