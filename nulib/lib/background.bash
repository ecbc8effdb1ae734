# Services on a server without a service manager. Sent by `bash -c`.
# usage: running|start|reload|stop NAME [PROGRAM ARGUMENT...]
# The program must stay in the foreground. Its pid is in /run/NAME.pid, what it says in /var/log/NAME.log.
set -u
verb=$1 name=$2 pid=0
shift 2
read -r pid 2>/dev/null <"/run/$name.pid"

running() { ((pid > 0)) && kill -0 "$pid" 2>/dev/null; }

# Its ports are free when it has ended.
end() {
  local turn
  kill -TERM "$pid" || return
  for ((turn = 0; turn < 400; turn++)); do
    running || break
    sleep 0.05
  done
  if running; then kill -KILL "$pid"; fi
  rm -f -- "/run/$name.pid"
}

start() {
  setsid -- "$@" >>"/var/log/$name.log" 2>&1 </dev/null &
  echo "$!" >"/run/$name.pid"
}

case $verb in
running) running ;;
start) start "$@" ;;
reload) end && start "$@" ;;
stop) end ;;
esac
