# The `ssh` provider: machines that are there already, from [inventory] of the infra's settings.
#
# Creating a server adopts the machine: it is reached, its facts are recorded,
# and a record on the machine says whose it is. Deleting forgets it. Nothing is
# switched on or off; a restart reboots it.

use ../lib/failure.nu [again code-of fail-for-now]
use ../lib/infra.nu [load-settings]
use ../lib/programs.nu [capture]
use ../lib/ssh.nu [ssh-close ssh-entry ssh-login ssh-target]

const script = (path self ssh/machine.bash)

# The closures that providers/README.md promises.
export def ssh-provider []: nothing -> record {
  {
    list: {|infra| list-machines $infra }
    find: {|infra name| find-machine $infra $name }
    create: {|spec| adopt $spec }
    start: {|infra name| false }
    stop: {|infra name| refuse-to-stop $name }
    restart: {|infra name| reboot $infra $name }
    delete: {|infra name| forget $infra $name }
    enter: {|infra name argv| ssh-entry (target-of $infra $name) $argv }
    login: {|infra name| ssh-login (target-of $infra $name) }
    plans: {|infra| [] }
    zones: {|infra| zones-of $infra }
    price: {|infra plan zone| null }
  }
}

# What the inventory says of a machine; null if it does not have it.
def entry-of [
  settings: record # What `load-settings` returned
  name: string # Server name
]: nothing -> any {
  $settings.inventory? | default {} | get --optional $name
}

# Where and how to log in to a machine of the inventory.
def target-of [
  infra: string # Namespace of the name
  name: string # Server name
]: nothing -> record {
  let settings = (load-settings $infra)
  let entry = (entry-of $settings $name)
  if $entry == null {
    error make {
      msg: $"the inventory of infra ($infra) has no machine ($name)"
      code: "provisioning::servers::not-found"
      help: $"write [inventory.($name)] with its address into the infra's settings"
    }
  }
  ssh-target $settings $entry
}

# Run machine.bash on a machine; its stdout. An error says why it cannot be.
def ask [
  target: record # What `ssh-target` returned
  ...words: string # The words of machine.bash
]: nothing -> string {
  let entered = (ssh-entry $target [bash -c (open --raw $script | decode utf-8) machine ...$words])
  let ended = (capture $entered.argv --input $entered.input --quiet)
  if $ended.exit_code != 0 {
    do $entered.explain $ended.stderr
    if $ended.exit_code == 255 {
      fail-for-now "provisioning::ssh::unreachable" $"the connection to ($target.host) broke: ($ended.stderr | str trim)" --retry-after 10sec
    }
    error make {
      msg: $"($target.host): ($words.0) ended with exit code ($ended.exit_code): ($ended.stderr | str trim)"
      code: "provisioning::ssh::failed"
      help: "the message is what the machine said"
    }
  }
  $ended.stdout
}

# A machine that was adopted under this name, or null.
def find-machine [
  infra: string # Namespace of the name
  name: string # Server name
]: nothing -> any {
  let settings = (load-settings $infra)
  let entry = (entry-of $settings $name)
  if $entry == null { return null }
  let record = (ask (ssh-target $settings $entry) show | from json)
  if $record.name? != $name or $record.infra? != $infra { return null }
  shown $infra $name $entry $record running
}

# A server as every provider shows it.
def shown [
  infra: string # Namespace of the name
  name: string # Server name
  entry: record # What the inventory says
  record: record # What the machine says
  state: string # Its state
]: nothing -> record {
  {
    name: $name
    infra: $infra
    provider: "ssh"
    plan: ($entry.plan? | default ($record.plan? | default ""))
    zone: ($entry.zone? | default "")
    state: $state
    ip: $entry.address
    id: ($record.machine_id? | default "")
    created_at: ($record.adopted_at? | default "")
  }
}

# All machines of the inventory that were adopted, and those that cannot be asked.
def list-machines [
  infra: string # Namespace of the names
]: nothing -> list<any> {
  let inventory = (load-settings $infra).inventory? | default {}
  $inventory
  | columns
  | sort
  | par-each --keep-order {|name|
      try { find-machine $infra $name } catch {|caught|
        if (code-of $caught) != "provisioning::ssh::unreachable" { again $caught }
        shown $infra $name ($inventory | get $name) {} unreachable
      }
    }
  | compact
}

# Adopt a machine unless it is ours already; says whether it was.
def adopt [
  spec: record # What to create
]: nothing -> bool {
  let target = (target-of $spec.infra $spec.name)
  if (is-ours $target $spec (ask $target show | from json)) { return false }
  let facts = (ask $target facts | lines)
  let memory_gb = ([1 (($facts.1 | into int) / 1048576 | math round)] | math max)
  let adopted = (ask $target adopt ({
    name: $spec.name
    infra: $spec.infra
    labels: $spec.labels
    plan: $"($facts.0)xCPU-($memory_gb)GB"
    kernel: $facts.2
    machine: $facts.3
    system: $facts.4
    machine_id: $facts.5
    adopted_at: (date now | date to-timezone UTC | format date "%Y-%m-%dT%H:%M:%SZ")
  } | to json --raw))
  if ($adopted | str trim) == "yes" { return true }
  # Somebody else was faster.
  if not (is-ours $target $spec (ask $target show | from json)) {
    fail-for-now "provisioning::ssh::busy" $"($target.host) is adopted and forgotten by others at the same time"
  }
  false
}

# Whether a machine's record is the one asked for; that of another server is an error.
def is-ours [
  target: record # What `ssh-target` returned
  spec: record # The server asked for
  record: record # What the machine says
]: nothing -> bool {
  if ($record.name? | default "") == "" { return false }
  if $record.name == $spec.name and $record.infra? == $spec.infra { return true }
  error make {
    msg: $"($target.host) is server ($record.name) of infra ($record.infra) already"
    code: "provisioning::ssh::invalid-machine"
    help: $"look at the inventory; let it go there first: provisioning server delete ($record.name) --infra ($record.infra)"
  }
  false
}

# Forget a machine; says whether it was ours.
def forget [
  infra: string # Namespace of the name
  name: string # Server name
]: nothing -> bool {
  if (find-machine $infra $name) == null { return false }
  (ask (target-of $infra $name) forget | str trim) == "yes"
}

# Reboot a machine and wait until it is back.
def reboot [
  infra: string # Namespace of the name
  name: string # Server name
]: nothing -> bool {
  let settings = (load-settings $infra).ssh? | default {}
  let target = (target-of $infra $name)
  let before = (ask $target boot)
  let entered = (ssh-entry $target ($settings.reboot? | default [systemctl reboot]))
  let ended = (capture $entered.argv --input $entered.input)
  ssh-close $target
  # 255: the connection broke, as it must.
  if $ended.exit_code not-in [0 255] {
    error make {
      msg: $"($target.host) does not reboot: exit code ($ended.exit_code)"
      code: "provisioning::ssh::failed"
      help: "the log has what it said; [ssh] reboot in the infra's settings is the command"
    }
  }
  let until = ((date now) + (($settings.reboot_seconds? | default 300) * 1sec))
  while (date now) < $until {
    if (try { ask $target boot } catch { $before }) != $before { return true }
    ssh-close $target
    sleep 500ms
  }
  fail-for-now "provisioning::ssh::unreachable" $"($target.host) is not back after its reboot" --retry-after 30sec
  false
}

# A machine that is off cannot be switched on from here, so none is switched off.
def refuse-to-stop [
  name: string # Server name
]: nothing -> bool {
  error make {
    msg: $"server ($name) is a machine of its own: it could not be started again from here"
    code: "provisioning::ssh::invalid-stop"
    help: $"forget it: provisioning server delete ($name); or power it off yourself: provisioning server exec ($name) -- poweroff"
  }
  false
}

# The zones that the inventory names.
def zones-of [
  infra: string # Whose inventory
]: nothing -> list<any> {
  (load-settings $infra).inventory?
  | default {}
  | values
  | each {|entry| $entry.zone? }
  | compact
  | uniq
  | each {|zone| { id: $zone description: "named in the inventory" } }
}
