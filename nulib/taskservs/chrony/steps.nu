# The steps of the taskserv chrony.

use ../../lib/steps.nu *

# What runs it where there is no service manager.
def commands []: nothing -> record {
  in-background chrony [chronyd -x -d]
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
  let served = (have-running $it chrony (commands) --reload=($changed | is-not-empty))
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
  let stopped = (have-stopped $it chrony (commands))
  (remove-files $it) or $stopped
}
