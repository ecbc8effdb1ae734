# The `aws` provider: EC2, or what speaks its protocol, through the `aws` command.
#
# A server is known by the tags `provisioning-infra` and `provisioning-name`. It
# is asked for with a client token made of the task's idempotency key, so that
# the same task never gets two. Settings: [aws], see README.md.

use ../lib/failure.nu [again fail-for-now]
use ../lib/ssh.nu [ssh-entry ssh-login ssh-target]
use aws/api.nu [call connect]

# The closures that README.md promises.
export def aws-provider []: nothing -> record {
  {
    list: {|infra| let api = (connect $infra); listed $api | each {|instance| shown $api $instance } }
    find: {|infra name| find-one (connect $infra) $name }
    create: {|spec| create-one (connect $spec.infra) $spec }
    start: {|infra name| to-state (connect $infra) $name running }
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

# The instances of the infra that are not on their way out, or those of one name; oldest first.
def listed [
  api: record # What `connect` returned
  name: string = "" # Server name; empty is all
]: nothing -> list<any> {
  let filters = [
    { Name: "tag:provisioning-infra" Values: [$api.infra] }
    { Name: "instance-state-name" Values: [pending running stopping stopped] }
    (if $name != "" { { Name: "tag:provisioning-name" Values: [$name] } })
  ]
  (call $api describe-instances { Filters: ($filters | compact) }).Reservations
  | each {|reservation| $reservation.Instances }
  | flatten
  | sort-by LaunchTime InstanceId
}

# A tag of an instance; empty if it has none of that key.
def tag [
  instance: record # As EC2 shows it
  key: string # The tag's key
]: nothing -> string {
  $instance.Tags? | default [] | where Key == $key | get --optional 0.Value | default ""
}

# A server as every provider shows it.
def shown [
  api: record # What `connect` returned
  instance: record # As EC2 shows it
]: nothing -> record {
  let private = ($instance.PrivateIpAddress? | default "")
  let plan = ($api.plans? | default {} | transpose name kind | where kind == $instance.InstanceType | get --optional 0.name)
  {
    name: (tag $instance "provisioning-name")
    infra: $api.infra
    provider: "aws"
    plan: ($plan | default $instance.InstanceType)
    zone: ($instance.Placement?.AvailabilityZone? | default "")
    state: (match $instance.State.Name { "running" => "running" "stopped" => "stopped" _ => "starting" })
    ip: (if $api.address? == "private" { $private } else { $instance.PublicIpAddress? | default $private })
    id: $instance.InstanceId
    created_at: (tag $instance "provisioning-created")
  }
}

# One server, or null.
def find-one [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> any {
  let found = (listed $api $name)
  if ($found | is-empty) { null } else { shown $api ($found | first) }
}

# The server of a name, as EC2 shows it.
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

# Create a server unless it is there; says whether it was created.
def create-one [
  api: record # What `connect` returned
  spec: record # What to create
]: nothing -> bool {
  let there = (listed $api $spec.name)
  if ($there | is-not-empty) {
    if ($there | first).State.Name == "pending" { await $api ($there | first).InstanceId [running stopped] }
    return false
  }
  let id = (request-instance $api $spec)
  for _ in 1..3 {
    if (keep-one $api $spec.name $id) { return true }
  }
  fail-for-now "provisioning::aws::busy" $"server ($spec.name) is made and deleted by others at the same time"
  true
}

# Wait for the oldest server of a name, and delete the others; says whether it is still the oldest then.
def keep-one [
  api: record # What `connect` returned
  name: string # Server name
  id: string # The one that was just made
]: nothing -> bool {
  # Two were made by tasks that did not know of each other.
  let ours = (listed $api $name)
  let extra = ($ours | skip 1 | each {|instance| $instance.InstanceId })
  if ($extra | is-not-empty) {
    print --stderr $"server ($name) was made twice: ($extra | str join ', ') is deleted"
    call $api terminate-instances { InstanceIds: $extra } | ignore
  }
  let kept = ($ours | get --optional 0.InstanceId | default $id)
  let failed = try { await $api $kept [running] } catch {|caught| $caught }
  let oldest = (listed $api $name | get --optional 0.InstanceId)
  # Not where another create of the same name, with an older server, has ended it.
  if $failed != null and $oldest in [null $kept] { again $failed }
  $oldest == $kept
}

# Ask for a new instance; its id. The same task asks with the same token, and gets the same.
def request-instance [
  api: record # What `connect` returned
  spec: record # What to create
]: nothing -> string {
  let image = if $spec.image != "" { $spec.image } else { $api.image? | default "" }
  if $image == "" {
    error make {
      msg: "no image says what the server starts from"
      code: "provisioning::aws::invalid-request"
      help: "write --image ami-…, or image in [aws] of the infra's settings"
    }
  }
  let zone = if $spec.zone != "" { $spec.zone } else { $api.zone? | default "" }
  let tags = [
    { Key: "Name" Value: $spec.name }
    { Key: "provisioning-infra" Value: $spec.infra }
    { Key: "provisioning-name" Value: $spec.name }
    { Key: "provisioning-created" Value: (created-at) }
    ...($spec.labels | transpose Key Value | update Value { into string })
  ]
  let request = (
    {
      ImageId: $image
      InstanceType: ($api.plans? | default {} | get --optional $spec.plan | default $spec.plan)
      MinCount: 1
      MaxCount: 1
      TagSpecifications: [{ ResourceType: "instance" Tags: $tags }]
    }
    | merge (if $api.key_name? == null { {} } else { { KeyName: $api.key_name } })
    | merge (if $api.subnet? == null { {} } else { { SubnetId: $api.subnet } })
    | merge (if $api.security_groups? == null { {} } else { { SecurityGroupIds: $api.security_groups } })
    | merge (if $zone == "" { {} } else { { Placement: { AvailabilityZone: $zone } } })
    | merge (user-data $spec.ssh_keys)
  )
  let asked_by = ($env.PROVISIONING_IDEMPOTENCY_KEY? | default (random uuid))
  mut token = ($"($asked_by)/($spec.infra)/($spec.name)" | hash sha256)
  for _ in 1..3 {
    let instance = ((call $api run-instances ($request | insert ClientToken $token)).Instances | first)
    let state = (state-of $api $instance.InstanceId)
    if $state not-in [shutting-down terminated] { return $instance.InstanceId }
    # The one that this token made was deleted since: ask for the next.
    $token = ($"($token)/($instance.InstanceId)" | hash sha256)
  }
  fail-for-now "provisioning::aws::busy" $"server ($spec.name) is deleted as often as it is made" --retry-after 30sec
  ""
}

# The time of the creation. The same for every try of a task, as its token asks for the same request.
def created-at []: nothing -> string {
  let ulid = ($env.PROVISIONING_IDEMPOTENCY_KEY? | default "" | split row "/" | first | str uppercase)
  if $ulid !~ '\A[0-7][0-9A-HJKMNP-TV-Z]{25}\z' {
    return (date now | date to-timezone UTC | format date "%Y-%m-%dT%H:%M:%S%.3fZ")
  }
  # The first ten characters of a ULID are milliseconds, in Crockford's base 32.
  let digits = ("0123456789ABCDEFGHJKMNPQRSTVWXYZ" | split chars | enumerate)
  let milliseconds = (
    $ulid | str substring 0..9 | split chars
    | reduce --fold 0 {|digit total| $total * 32 + ($digits | where item == $digit | get 0.index) }
  )
  $milliseconds * 1_000_000 | into datetime | date to-timezone UTC | format date "%Y-%m-%dT%H:%M:%S%.3fZ"
}

# The first thing that the instance runs, where keys were given: they may log in.
def user-data [
  keys: list<string> # Public keys
]: nothing -> record {
  if ($keys | is-empty) { return {} }
  { UserData: ($"#cloud-config\n({ ssh_authorized_keys: $keys } | to json)\n" | encode base64) }
}

# The state of an instance; terminated where it is not known any more.
def state-of [
  api: record # What `connect` returned
  id: string # Its id
]: nothing -> string {
  let filters = [{ Name: "instance-id" Values: [$id] }]
  let found = (call $api describe-instances { Filters: $filters }).Reservations
  $found | each {|one| $one.Instances } | flatten | get --optional 0.State.Name | default "terminated"
}

# Wait until an instance is in one of some states.
def await [
  api: record # What `connect` returned
  id: string # Its id
  states: list<string> # The states
]: nothing -> nothing {
  let until = ((date now) + ($api.wait_seconds * 1sec))
  mut state = (state-of $api $id)
  while $state not-in $states {
    if $state in [shutting-down terminated] and "terminated" not-in $states {
      error make {
        msg: $"instance ($id) is ($state)"
        code: "provisioning::aws::failed"
        help: "EC2 or somebody else has ended it: see its StateReason in EC2"
      }
    }
    if (date now) > $until {
      fail-for-now "provisioning::aws::busy" $"instance ($id) is ($state) after ($api.wait_seconds) s" --retry-after 30sec
    }
    sleep ($api.poll_seconds * 1sec)
    $state = (state-of $api $id)
  }
}

# Bring the server of a name into a state; says whether it was in another.
def to-state [
  api: record # What `connect` returned
  name: string # Server name
  target: string # running or stopped
]: nothing -> bool {
  let instance = (the-one $api $name)
  await $api $instance.InstanceId [running stopped]
  if (state-of $api $instance.InstanceId) == $target { return ($instance.State.Name != $target) }
  let action = if $target == "running" { "start-instances" } else { "stop-instances" }
  call $api $action { InstanceIds: [$instance.InstanceId] } | ignore
  await $api $instance.InstanceId [$target]
  true
}

# Restart the server of a name, or start it.
def restart [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> bool {
  if (to-state $api $name running) { return true }
  let instance = (the-one $api $name)
  call $api reboot-instances { InstanceIds: [$instance.InstanceId] } | ignore
  await $api $instance.InstanceId [running]
  true
}

# Delete every server of a name.
def delete-all [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> bool {
  let ids = (listed $api $name | each {|instance| $instance.InstanceId })
  if ($ids | is-empty) { return false }
  call $api terminate-instances { InstanceIds: $ids } | ignore
  for id in $ids { await $api $id [terminated] }
  true
}

# Where and how to log in to a server.
def target-of [
  api: record # What `connect` returned
  name: string # Server name
]: nothing -> record {
  let server = (shown $api (the-one $api $name))
  if $server.state != "running" or $server.ip == "" {
    error make {
      msg: $"server ($name) is ($server.state) and has the address ($server.ip | to json)"
      code: "provisioning::servers::not-running"
      help: $"start it: provisioning server start ($name) --infra ($api.infra)"
    }
  }
  ssh-target $api.settings { address: $server.ip user: ($api.user? | default "admin") }
}

# The sizes that can be created: those of the settings' plans, or of the current generation.
def list-plans [
  api: record # What `connect` returned
]: nothing -> list<any> {
  let plans = ($api.plans? | default {} | transpose name kind)
  let request = if ($plans | is-empty) {
    { Filters: [{ Name: "current-generation" Values: ["true"] }] }
  } else {
    { InstanceTypes: ($plans.kind | uniq) }
  }
  let kinds = (
    (call $api describe-instance-types $request).InstanceTypes | each {|kind|
      {
        name: $kind.InstanceType
        cpus: $kind.VCpuInfo.DefaultVCpus
        memory_gb: ($kind.MemoryInfo.SizeInMiB / 1024)
        storage_gb: ($kind.InstanceStorageInfo?.TotalSizeInGB? | default 0)
      }
    }
  )
  if ($plans | is-empty) { return $kinds }
  $plans | each {|plan| $kinds | where name == $plan.kind | first | update name $plan.name }
}

# The zones where servers can be created.
def list-zones [
  api: record # What `connect` returned
]: nothing -> list<any> {
  (call $api describe-availability-zones {}).AvailabilityZones
  | each {|zone| { id: $zone.ZoneName description: $"($zone.RegionName), ($zone.State)" } }
}

# What a plan costs: by the settings' own list, as EC2 itself does not say it.
def price-of [
  api: record # What `connect` returned
  plan: string # Name of the plan
  zone: string # Where; the list makes no difference
]: nothing -> any {
  let hourly = ($api.prices? | default {} | get --optional $plan)
  { zone: (if $zone == "" { $api.region } else { $zone }) currency: ($api.currency? | default "USD") hourly: $hourly }
}
