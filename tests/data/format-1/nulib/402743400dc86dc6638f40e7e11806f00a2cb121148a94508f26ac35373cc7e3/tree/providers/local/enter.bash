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

# Run by `bash -c`, which holds no script open.
close_all='for open in /proc/self/fd/*; do fd=${open##*/}; if ((fd > 2)); then exec {fd}>&-; fi; done; exec "$@"'

exec bash -c "$close_all" enter "${user[@]}" \
  nsenter --target "$pid" --user --preserve-credentials --mount --uts --ipc --net --pid -- \
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LANG=C.UTF-8 \
  bash -c 'cd /root && exec -- "$@"' bash "$@"
