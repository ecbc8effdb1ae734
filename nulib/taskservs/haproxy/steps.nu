# The steps of the taskserv haproxy.

use ../../lib/steps.nu *

const commands = {
  running: [bash -c 'kill -0 "$(cat /run/haproxy.pid)" 2>/dev/null']
  start: [haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid]
  reload: [bash -c 'haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -sf $(cat /run/haproxy.pid)']
  stop: [bash -c 'kill -TERM $(cat /run/haproxy.pid) && rm -f /run/haproxy.pid']
}

# Take the step that stdin asks for.
def main []: any -> nothing {
  collect | take-steps {
    install: {|it| apply $it }
    update: {|it| apply $it }
    remove: {|it| remove $it }
    check: {|it| check $it; false }
  }
}

# Install, or bring up to date.
def apply [
  it: record # What the step was given
]: nothing -> bool {
  let installed = (have-programs $it)
  let changed = (put-files $it)
  on $it [haproxy -c -q -f /etc/haproxy/haproxy.cfg] | ignore
  let served = (have-running $it haproxy $commands --reload=($changed | is-not-empty))
  check $it
  $installed or $served or ($changed | is-not-empty)
}

# Takes connections on its port.
def check [
  it: record # What the step was given
]: nothing -> nothing {
  wait-until $it [bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"' ($it.data.port | into string)]
}

# Stop it and take its files away.
def remove [
  it: record # What the step was given
]: nothing -> bool {
  let stopped = (have-stopped $it haproxy $commands)
  (remove-files $it) or $stopped
}
