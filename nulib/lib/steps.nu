# What the steps of a taskserv are made of. `steps.nu` of a taskserv runs as a process of its own.

use failure.nu [fail-for-now]
use provider.nu [run-in-server]
use taskserv.nu [on-server]

const background = (path self background.bash)

# The commands of a service that stays in the foreground, for `have-running` and `have-stopped`.
export def in-background [
  name: string # Name of the service
  argv: list<string> # The program and its arguments
]: nothing -> record<running: list<string>, start: list<string>, reload: list<string>, stop: list<string>> {
  let script = (open --raw $background | decode utf-8)
  [running start reload stop] | reduce --fold {} {|verb all| $all | insert $verb [bash -c $script $name $verb $name ...$argv] }
}

# Take the step that stdin asks for, and answer on stdout. `steps` are closures by
# name, each of which takes what is asked for and returns whether it changed anything.
export def take-steps [
  steps: record # install, update, remove and check
]: string -> nothing {
  let it = ($in | from json)
  let answer = try {
    { changed: (do ($steps | get $it.step) $it) }
  } catch {|caught|
    mut level = [$caught.details]
    mut found = $caught.details
    while ($level | is-not-empty) {
      for error in $level {
        if ($error.code? | default "" | str starts-with "provisioning::") { $found = $error }
      }
      $level = ($level | get --optional inner | compact | flatten)
    }
    let label = if ($found.code? | default "" | str starts-with "provisioning::") { "" } else { $found.labels?.0?.text? | default "" }
    {
      error: {
        msg: ([$found.msg $label] | where {|part| $part != "" } | str join ": ")
        code: ($found.code? | default "provisioning::taskservs::step-failed")
        help: ($found.help? | default "the log has what was done before")
        url: ($found.url? | default "")
      }
    }
  }
  print ($answer | to json --raw)
}

# Run a command on the server; an exit code other than 0 is an error.
export def on [
  it: record # What the step was given
  argv: list<string> # The program and its arguments
  --input: string = "" # What it reads on its stdin
]: nothing -> string {
  let ended = (run-in-server $it.server $argv --input $input)
  if $ended.exit_code != 0 {
    error make {
      msg: $"($it.definition.name) on server ($it.server.name): ($argv | str join ' ') ended with exit code ($ended.exit_code): ($ended.stderr | str trim | lines | last 3 | str join '; ')"
      code: "provisioning::taskservs::step-failed"
      help: "the log has all that it printed"
    }
  }
  $ended.stdout
}

# Whether a command on the server ends with 0.
export def succeeds [
  it: record # What the step was given
  argv: list<string> # The program and its arguments
]: nothing -> bool {
  (run-in-server $it.server $argv --quiet).exit_code == 0
}

# Have the taskserv's programs on the server: they are there, or in the bundle, or its packages bring them.
export def have-programs [
  it: record # What the step was given
]: nothing -> bool {
  let lacking = (on-server $it.server lacking ...$it.definition.programs | lines)
  if ($lacking | is-empty) { return false }
  if $it.bundle != "" {
    unpack-bundle $it
  } else if $it.offline {
    error make {
      msg: $"($it.definition.name): server ($it.server.name) lacks ($lacking | str join ', '), no bundle has them, and nothing may be fetched"
      code: "provisioning::taskservs::invalid-bundle"
      help: $"put packages or archives with their SHA256SUMS into the folder ($it.definition.name) of the bundle, and name the bundle in the infra's settings"
    }
  } else if $it.server.provider == "local" {
    error make {
      msg: $"($it.definition.name): server ($it.server.name) has the programs of this host, which lacks ($lacking | str join ', ')"
      code: "provisioning::taskservs::invalid-host"
      help: $"install them on this host: apt install ($it.definition.packages | str join ' ')"
    }
  } else {
    print --stderr $"($it.definition.name): installing ($it.definition.packages | str join ', ')"
    on-server $it.server packages ...$it.definition.packages | ignore
  }
  let lacking = (on-server $it.server lacking ...$it.definition.programs | lines)
  if ($lacking | is-not-empty) {
    error make {
      msg: $"($it.definition.name): server ($it.server.name) still lacks ($lacking | str join ', ')"
      code: "provisioning::taskservs::step-failed"
      help: "see whether the bundle or the packages bring these programs"
    }
  }
  true
}

# Check the bundle here, carry it to the server, and install it there.
def unpack-bundle [
  it: record # What the step was given
]: nothing -> nothing {
  let checked = do { cd $it.bundle; ^sha256sum --quiet --strict -c SHA256SUMS | complete }
  let listed = (open --raw ($it.bundle | path join SHA256SUMS) | decode utf-8 | lines | parse --regex '\A[0-9a-f]{64} [ *](?P<file>.+)\z' | get --optional file | default [])
  let others = (ls --all --short-names $it.bundle | get name | where {|name| $name not-in ["SHA256SUMS" ...$listed] })
  if $checked.exit_code != 0 or ($others | is-not-empty) {
    error make {
      msg: $"the bundle ($it.bundle) is not what its SHA256SUMS says: ($checked.stderr | str trim) ($others | str join ', ')"
      code: "provisioning::taskservs::invalid-bundle"
      help: "carry it over again; sha256sum * >SHA256SUMS makes the list"
    }
  }
  print --stderr $"($it.definition.name): installing ($listed | str join ', ') from ($it.bundle)"
  let packed = (^tar -c -C $it.bundle . | collect | encode base64)
  on-server $it.server unpack ...$it.definition.programs --input $packed | ignore
}

# Put the taskserv's files in their places; says which have changed.
export def put-files [
  it: record # What the step was given
]: nothing -> list<string> {
  $it.files | where {|file|
    (on-server $it.server put $file.path $file.mode $file.owner --input $file.content | str trim) == "yes"
  } | get --optional path | default []
}

# Take the taskserv's files away.
export def remove-files [
  it: record # What the step was given
]: nothing -> bool {
  on-server $it.server remove ...($it.files | get --optional path | default []) | lines | is-not-empty
}

# Whether the server has a service manager of its own; a container has not.
export def has-systemd [
  it: record # What the step was given
]: nothing -> bool {
  (on-server $it.server systemd | str trim) == "yes"
}

# Whether the server has more users than its root.
export def has-users [
  it: record # What the step was given
]: nothing -> bool {
  (on-server $it.server users | into int) > 1
}

# Have a service run with what is configured now; says whether it was started or reloaded.
#
# By systemd where the server has it, else by the commands that are given: `start`
# puts itself into the background, `reload` takes over new configuration.
export def have-running [
  it: record # What the step was given
  unit: string # Name of the systemd unit
  commands: record # running, start and reload: each an argv
  --reload # Something has changed
]: nothing -> bool {
  if (has-systemd $it) {
    on $it [systemctl enable $unit] | ignore
    let active = (succeeds $it [systemctl is-active --quiet $unit])
    if not $active { on $it [systemctl start $unit] | ignore }
    if $active and $reload { on $it [systemctl reload-or-restart $unit] | ignore }
    return ($reload or not $active)
  }
  let running = (succeeds $it $commands.running)
  if not $running { on $it $commands.start | ignore }
  if $running and $reload { on $it $commands.reload | ignore }
  $reload or not $running
}

# Have a service stopped; says whether it ran.
export def have-stopped [
  it: record # What the step was given
  unit: string # Name of the systemd unit
  commands: record # running and stop: each an argv
]: nothing -> bool {
  if (has-systemd $it) {
    let active = (succeeds $it [systemctl is-active --quiet $unit])
    if $active { on $it [systemctl disable --now $unit] | ignore }
    return $active
  }
  let running = (succeeds $it $commands.running)
  if $running { on $it $commands.stop | ignore }
  $running
}

# Wait until a command on the server ends with 0; an error after the time.
export def wait-until [
  it: record # What the step was given
  argv: list<string> # The program and its arguments
  --max: duration = 20sec # How long
]: nothing -> nothing {
  let until = ((date now) + $max)
  while not (succeeds $it $argv) {
    if (date now) > $until {
      fail-for-now "provisioning::taskservs::unhealthy" $"($it.definition.name) on server ($it.server.name) does not answer: ($argv | str join ' ')" --retry-after 10sec --advice "see what it says on the server, in /var/log or by journalctl"
    }
    sleep 100ms
  }
}
