# The steps of the taskserv etcd.

use ../../lib/steps.nu *

# What runs it where there is no service manager.
def commands []: nothing -> record {
  in-background etcd [bash -c 'set -a; . /etc/default/etcd; exec etcd']
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
  on $it [install -d /var/lib/etcd] | ignore
  let changed = (put-files $it)
  let served = (have-running $it etcd (commands) --reload=($changed | is-not-empty))
  check $it
  $installed or $served or ($changed | is-not-empty)
}

# Answers.
def check [
  it: record # What the step was given
]: nothing -> nothing {
  wait-until $it [etcdctl $"--endpoints=http://127.0.0.1:($it.data.client_port)" endpoint health]
}

# Stop it and take its files away.
def remove [
  it: record # What the step was given
]: nothing -> bool {
  let stopped = (have-stopped $it etcd (commands))
  (remove-files $it) or $stopped
}
