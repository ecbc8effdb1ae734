# The steps of the taskserv chrony.

use ../../lib/steps.nu *

const commands = {
  running: [bash -c 'kill -0 "$(cat /run/chrony.pid)" 2>/dev/null']
  start: [bash -c 'chronyd -x && while ! cat /run/chrony/chronyd.pid >/run/chrony.pid; do sleep 0.05; done']
  reload: [bash -c 'kill "$(cat /run/chrony.pid)"; chronyd -x && while ! cat /run/chrony/chronyd.pid >/run/chrony.pid; do sleep 0.05; done']
  stop: [bash -c 'kill "$(cat /run/chrony.pid)" && rm -f /run/chrony.pid']
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
  on $it [install -d /etc/chrony /var/log/chrony /var/lib/chrony] | ignore
  let changed = (put-files $it)
  let served = (have-running $it chrony $commands --reload=($changed | is-not-empty))
  check $it
  $installed or $served or ($changed | is-not-empty)
}

# Answers.
def check [
  it: record # What the step was given
]: nothing -> nothing {
  wait-until $it [chronyc -n tracking]
}

# Stop it and take its files away.
def remove [
  it: record # What the step was given
]: nothing -> bool {
  let stopped = (have-stopped $it chrony $commands)
  (remove-files $it) or $stopped
}
