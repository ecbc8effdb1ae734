# The `upcloud` provider: UpCloud's API 1.3 over HTTP.
#
# A server is known by two labels, `provisioning-infra` and `provisioning-name`:
# it is looked up by them before it is made, and again where the answer to its
# creation was lost. Settings: [upcloud], see README.md.

use ../lib/failure.nu [again code-of fail-for-now]
use ../lib/ssh.nu [ssh-entry ssh-login ssh-target]
use upcloud/api.nu [call connect]
use upcloud/offers.nu [list-plans list-zones price-of template-of]
use upcloud/record.nu [label shown]

const passing = [
  "provisioning::upcloud::busy"
  "provisioning::upcloud::limited"
  "provisioning::upcloud::unavailable"
  "provisioning::upcloud::unreachable"
]

const page_of = 100 # servers: as many as the API lists at once

# The closures that README.md promises.
export def upcloud-provider []: nothing -> record {
  {
    list: {|infra| list-servers (connect $infra) }
    find: {|infra name| find-one (connect $infra) $name }
    create: {|spec| create-one (connect $spec.infra) $spec }
    start: {|infra name| to-state (connect $infra) $name started }
    stop: {|infra name| to-state (connect $infra) $name stopped }
    restart: {|infra name| restart (connect $infra) $name }
    delete: {|infra name| delete-all (connect $infra) $name }
    enter: {|infra name argv| ssh-entry (target-of (connect $infra) $name) $argv }
    login: {|infra name| ssh-login (target-of (connect $infra) $name) }
    plans: {|infra| list-plans (connect $infra) }
    zones: {|infra| list-zones (connect $infra) }
    price: {|infra plan zone| price-of (connect $infra) $plan $zone }
  }
}

# The servers of the infra, or those of one name: as the list shows them, oldest first.
def listed [
  api: record # What `connect` returned
  name: string = "" # Server name; empty is all
]: nothing -> list<any> {
  let labels = [$"provisioning-infra=($api.infra)" (if $name != "" { $"provisioning-name=($name)" })]
  let query = ($labels | compact | each {|label| $"label=($label | url encode --all)" } | str join "&")
  mut found = []
  loop {
    let page = (call $api GET $"/server?($query)&limit=($page_of)&offset=($found | length)").servers.server
    $found = ($found ++ $page)
    if ($page | length) < $page_of { break }
  }
  # Held against the labels here too: a filter that is not obeyed must not make others' servers ours.
  $found
  | where {|server| (label $server "provisioning-infra") == $api.infra }
  | where {|server| $name == "" or (label $server "provisioning-name") == $name }
  | uniq-by uuid
  | sort-by {|server| label $server "provisioning-created" } uuid
}

# The details of a server, or null where it is gone.
def details [
  api: record # What `connect` returned
  uuid: string # Its id
]: nothing -> any {
  let found = (call $api GET $"/server/($uuid)" --may-miss)
  if $found == null { null } else { $found.server }
}

# All servers of the infra.
def list-servers [
  api: record # What `connect` returned
]: nothing -> list<any> {
  listed $api | par-each --threads 4 --keep-order {|server| details $api $server.uuid } | compact | each {|server| shown $api $server }
}

# One server, or null.
def find-one [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> any {
  # The list may still have one that is gone.
  for found in (listed $api $name) {
    let server = (details $api $found.uuid)
    if $server != null { return (shown $api $server) }
  }
  null
}

# Create a server unless it is there; says whether it was created.
def create-one [
  api: record # What `connect` returned
  spec: record # What to create
]: nothing -> bool {
  let there = (listed $api $spec.name)
  let changed = ($there | is-empty)
  if $changed { request-server $api $spec }
  # Another create of the same name may have found an older one, and deleted what was looked at here.
  for _ in 1..3 {
    let kept = try { keep-one $api $spec.name --start=$changed } catch {|caught|
      if (code-of $caught) != "provisioning::servers::not-found" { again $caught }
      false
    }
    if $kept { return $changed }
  }
  fail-for-now "provisioning::upcloud::busy" $"server ($spec.name) is made and deleted by others at the same time"
  $changed
}

# Wait for the oldest server of a name, and delete the others; says whether it is still the oldest then.
def keep-one [
  api: record # What `connect` returned
  name: string # Server name
  --start # Bring it up, and not only to rest
]: nothing -> bool {
  let ours = (listed $api $name)
  if ($ours | is-empty) {
    fail-for-now "provisioning::upcloud::unavailable" $"server ($name) was asked for, and is not in the list yet"
  }
  # Two were made where an answer was lost for long, or by two tasks at once.
  for extra in ($ours | skip 1) {
    print --stderr $"server ($name) was made twice: ($extra.uuid) is deleted"
    drive $api $extra.uuid gone | ignore
  }
  let server = ($ours | first)
  if $start {
    drive $api $server.uuid started | ignore
  } else if $server.state == "maintenance" {
    drive $api $server.uuid settled | ignore
  }
  (listed $api $name | get --optional 0.uuid) == $server.uuid
}

# Ask for a new server. An answer that is lost is looked for in the list.
def request-server [
  api: record # What `connect` returned
  spec: record # What to create
]: nothing -> nothing {
  let zone = if $spec.zone != "" { $spec.zone } else { $api.zone? | default "" }
  let plan = (list-plans $api | where name == $spec.plan | get --optional 0)
  if $plan == null or $zone == "" {
    error make {
      msg: (if $plan == null { $"UpCloud has no plan ($spec.plan | to json)" } else { "no zone says where to create the server" })
      code: "provisioning::upcloud::invalid-request"
      help: $"see: provisioning server plans --provider upcloud --infra ($api.infra), and server zones"
    }
  }
  let keys = ($api.ssh_keys? | default [] | append $spec.ssh_keys)
  let body = {
    zone: $zone
    title: $"($spec.infra)/($spec.name)"
    hostname: $spec.name
    plan: $spec.plan
    metadata: "yes"
    login_user: {
      username: ($api.user? | default "root")
      create_password: "no"
      ssh_keys: { ssh_key: $keys }
    }
    networking: {
      interfaces: {
        interface: [
          { type: "public" ip_addresses: { ip_address: [{ family: "IPv4" }] } }
          { type: "utility" ip_addresses: { ip_address: [{ family: "IPv4" }] } }
        ]
      }
    }
    storage_devices: {
      storage_device: [
        {
          action: "clone"
          storage: (template-of $api $spec.image)
          title: $"($spec.infra)/($spec.name)"
          size: ($api.storage_gb? | default ([10 $plan.storage_gb] | math max))
        }
      ]
    }
  }
  # The labels last: who is the oldest is told by the time in them.
  let asked = ($body | insert labels { label: (labels-of $spec) })
  try { call $api POST /server { server: $asked } | ignore } catch {|caught|
    if (code-of $caught) not-in $passing or not (appears $api $spec.name) { again $caught }
  }
}

# The labels of a new server.
def labels-of [
  spec: record # What to create
]: nothing -> list<any> {
  let own = [
    { key: "provisioning-infra" value: $spec.infra }
    { key: "provisioning-name" value: $spec.name }
    { key: "provisioning-created" value: (date now | date to-timezone UTC | format date "%Y-%m-%dT%H:%M:%S%.3fZ") }
  ]
  $own ++ ($spec.labels | transpose key value | update value { into string })
}

# Whether a server appears in the list within a few looks.
def appears [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> bool {
  for _ in 1..5 {
    let found = try { listed $api $name } catch { [] }
    if ($found | is-not-empty) { return true }
    sleep ($api.poll_seconds * 1sec)
  }
  false
}

# Bring a server into a state, step by step from what is seen: started, stopped, gone or settled.
#
# A call that passes by itself is made again until the time is over.
def drive [
  api: record # What `connect` returned
  uuid: string # Its id
  target: string # Where it must come to
]: nothing -> nothing {
  let until = ((date now) + ($api.wait_seconds * 1sec))
  mut last = ""
  loop {
    let step = try { { state: (step $api $uuid $target) } } catch {|caught|
      if (code-of $caught) not-in $passing { again $caught }
      { failed: $caught }
    }
    if $step.state? == $target or ($target == "settled" and ($step.state? | default "maintenance") != "maintenance") {
      return
    }
    if $step.state? == "error" and $target != "gone" {
      error make {
        msg: $"server ($uuid) is in the state error"
        code: "provisioning::upcloud::failed"
        help: "look at it in UpCloud's own console; deleting it is possible: provisioning server delete"
      }
    }
    if $step.state? == "gone" {
      error make {
        msg: $"server ($uuid) is gone"
        code: "provisioning::servers::not-found"
        help: "somebody else has deleted it"
      }
    }
    if (date now) > $until {
      if $step.failed? != null { again $step.failed }
      fail-for-now "provisioning::upcloud::busy" $"server ($uuid) is ($step.state) and not ($target) after ($api.wait_seconds) s" --retry-after 30sec
    }
    sleep ($api.poll_seconds * 1sec)
  }
}

# Look at a server and do what brings it nearer to a state; the state that was seen.
def step [
  api: record # What `connect` returned
  uuid: string # Its id
  target: string # Where it must come to
]: nothing -> string {
  let server = (details $api $uuid)
  if $server == null { return "gone" }
  match [$server.state $target] {
    ["started" "stopped"] | ["started" "gone"] => {
      let how = if $target == "gone" { "hard" } else { "soft" }
      call $api POST $"/server/($uuid)/stop" { stop_server: { stop_type: $how timeout: "60" } } | ignore
    }
    ["stopped" "started"] => { call $api POST $"/server/($uuid)/start" | ignore }
    ["stopped" "gone"] | ["error" "gone"] => {
      call $api DELETE $"/server/($uuid)/?storages=1&backups=delete" --may-miss | ignore
    }
  }
  $server.state
}

# Bring the server of a name into a state; says whether it was in another.
def to-state [
  api: record # What `connect` returned
  name: string # Server name
  target: string # started or stopped
]: nothing -> bool {
  let server = (the-one $api $name)
  drive $api $server.uuid $target
  $server.state != $target
}

# The server of a name, as the list shows it.
def the-one [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> record {
  let found = (listed $api $name)
  if ($found | is-empty) {
    error make {
      msg: $"there is no server ($name) in infra ($api.infra)"
      code: "provisioning::servers::not-found"
      help: $"see those that are there: provisioning server list --infra ($api.infra)"
    }
  }
  $found | first
}

# Restart the server of a name, or start it.
def restart [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> bool {
  let server = (the-one $api $name)
  drive $api $server.uuid settled
  if (details $api $server.uuid).state == "started" {
    let how = { stop_type: "soft" timeout: "60" timeout_action: "destroy" }
    call $api POST $"/server/($server.uuid)/restart" { restart_server: $how } | ignore
  }
  drive $api $server.uuid started
  true
}

# Delete every server of a name, with its storages.
def delete-all [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> bool {
  let found = (listed $api $name)
  for server in $found { drive $api $server.uuid gone }
  $found | is-not-empty
}

# Where and how to log in to a server.
def target-of [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> record {
  let server = (shown $api (details $api (the-one $api $name).uuid))
  if $server.state != "running" or $server.ip == "" {
    error make {
      msg: $"server ($name) is ($server.state) and has the address ($server.ip | to json)"
      code: "provisioning::servers::not-running"
      help: $"start it: provisioning server start ($name) --infra ($api.infra)"
    }
  }
  ssh-target $api.settings { address: $server.ip user: ($api.user? | default "root") }
}
