# The steps of the taskserv os.

use ../../lib/steps.nu *
use ../../lib/taskserv.nu [on-server]

# Take the step that stdin asks for.
def main []: any -> nothing {
  collect | take-steps {
    install: {|it| apply $it }
    update: {|it| apply $it }
    remove: {|it| remove $it }
    check: {|it| check $it; false }
  }
}

# Set up the system, or bring it up to date.
def apply [
  it: record # What the step was given
]: nothing -> bool {
  check-data $it
  let changed = (put-files $it)
  if not (succeeds $it [bash -c '[[ $(hostname) == "$0" ]]' $it.server.name]) {
    on $it [hostname -- $it.server.name] | ignore
  }
  on $it [ln -sfn $"/usr/share/zoneinfo/($it.data.timezone)" /etc/localtime] | ignore
  set-kernel $it
  let users = ($it.data.users | each {|user| have-user $it $user })
  check $it
  ($changed | is-not-empty) or ($users | any {|one| $one })
}

# Refuse data that is no name, before anything is changed.
def check-data [
  it: record # What the step was given
]: nothing -> nothing {
  let bad = (
    $it.data.users | where {|user| $user.name !~ '\A[a-z_][a-z0-9_-]{0,31}\z' } | each {|user| $user.name }
    | append ($it.data.sysctl | where {|one| $one.key !~ '\A[a-z0-9_.-]+\z' } | each {|one| $one.key })
    | append (if $it.data.timezone =~ '\A[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*\z' { [] } else { [$it.data.timezone] })
  )
  if ($bad | is-not-empty) {
    error make {
      msg: $"no names of users, kernel settings or a timezone: ($bad | to json --raw)"
      code: "provisioning::taskservs::invalid-data"
      help: "users are small letters, digits, - and _; a timezone is such as Europe/Helsinki"
    }
  }
  if ($it.data.users | is-not-empty) and not (has-users $it) {
    error make {
      msg: $"server ($it.server.name) can have no user but its root"
      code: "provisioning::taskservs::invalid-data"
      help: "a local server has several only if root made it"
    }
  }
}

# Have the kernel's settings as they are written; a container may not set all of them, and says which.
def set-kernel [
  it: record # What the step was given
]: nothing -> nothing {
  for one in $it.data.sysctl {
    let file = $"/proc/sys/($one.key | str replace --all '.' '/')"
    let set = (succeeds $it [bash -c '[[ $(cat -- "$0") == "$1" ]] || printf "%s\n" "$1" >"$0"' $file ($one.value | into string)])
    if $set { continue }
    let msg = $"server ($it.server.name) cannot set ($one.key) to ($one.value)"
    if (has-systemd $it) {
      error make { msg: $msg code: "provisioning::taskservs::invalid-data" help: "see whether the kernel has it: sysctl -a" }
    }
    print --stderr $"($msg): its host would have to"
  }
}

# Have a user with a home, groups and keys; says whether anything was changed.
def have-user [
  it: record # What the step was given
  user: record # name, and shell, groups and keys
]: nothing -> bool {
  let there = (succeeds $it [id -u $user.name])
  if not $there {
    on $it [useradd --create-home --shell ($user.shell? | default "/bin/bash") --user-group $user.name] | ignore
  }
  for group in ($user.groups? | default []) {
    if not (succeeds $it [bash -c 'id -nG -- "$0" | tr " " "\n" | grep -qxF -- "$1"' $user.name $group]) {
      on $it [usermod --append --groups $group $user.name] | ignore
    }
  }
  let home = (on $it [bash -c 'getent passwd -- "$0" | cut -d: -f6' $user.name] | str trim)
  on $it [install -d -m 0700 -o $user.name -g $user.name $"($home)/.ssh"] | ignore
  let keys = ($user.keys? | default [] | each {|key| $"($key)\n" } | str join)
  let put = (on-server $it.server put $"($home)/.ssh/authorized_keys" "600" $"($user.name):($user.name)" --input $keys | str trim)
  (not $there) or $put == "yes"
}

# Has the name that it should have.
def check [
  it: record # What the step was given
]: nothing -> nothing {
  wait-until $it [bash -c '[[ $(hostname) == "$0" && $(cat /etc/hostname) == "$0" ]]' $it.server.name] --max 2sec
}

# Take the kernel settings away. Name, hosts and users stay: a system without them would be none.
def remove [
  it: record # What the step was given
]: nothing -> bool {
  on-server $it.server remove /etc/sysctl.d/90-provisioning.conf | lines | is-not-empty
}
