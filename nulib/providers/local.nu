# The `local` provider: a server is a container of namespaces on this host.
#
# It needs util-linux, coreutils, bash, awk and hostname, and no root where the
# kernel lets users make namespaces. The host's programs are bound read-only;
# everything else is the server's own. For root a plan sets limits, where there
# are control groups, and a network of the infra's settings gives an address.
# Files: $PROVISIONING_SERVERS/<infra>/<name>/, see local/server.bash.

use ../lib/failure.nu [fail-for-now]
use ../lib/infra.nu [load-settings]
use ../lib/plans.nu [parse-plan]

const script = (path self local/server.bash)
const programs = [
  awk bash cat chmod chown cp cut flock hostname mount nsenter pivot_root
  setpriv setsid sha256sum stat sync tail umount unshare
]

# The closures that `load-provider` promises.
export def local-provider []: nothing -> record {
  {
    list: {|infra| list-local $infra }
    find: {|infra name| find-local $infra $name }
    create: {|spec| create-local $spec }
    start: {|infra name| change start $infra $name }
    stop: {|infra name| change stop $infra $name }
    restart: {|infra name| change restart $infra $name }
    delete: {|infra name| change delete $infra $name }
    login: {|infra name| (enter-local $infra $name [bash -l]).argv }
    plans: {|infra| list-plans }
    zones: {|infra| [{ id: "host" description: "this host" }] }
    price: {|infra plan zone| null }
    enter: {|infra name argv| enter-local $infra $name $argv }
  }
}

# The folder of all local servers of this user.
export def servers-dir []: nothing -> string {
  let chosen = ($env.PROVISIONING_SERVERS? | default "")
  let state = ($env.XDG_STATE_HOME? | default "")
  let home = ($env.HOME? | default "")
  if $chosen != "" {
    check-absolute PROVISIONING_SERVERS $chosen
  } else if (is-root) {
    "/var/lib/provisioning/servers"
  } else if $state != "" {
    check-absolute XDG_STATE_HOME $state | path join provisioning servers
  } else if $home != "" {
    check-absolute HOME $home | path join .local state provisioning servers
  } else {
    error make {
      msg: "there is no folder for servers: none of PROVISIONING_SERVERS, XDG_STATE_HOME and HOME is set"
      code: "provisioning::local::no-state-folder"
      help: "set PROVISIONING_SERVERS to an absolute path"
    }
  }
}

# Return an absolute path as it is and refuse any other.
def check-absolute [
  variable: string # Where the path comes from
  path: string # The path
]: nothing -> string {
  if not ($path | str starts-with "/") {
    error make {
      msg: $"($variable) is not an absolute path: ($path | to json)"
      code: "provisioning::local::invalid-state-folder"
      help: $"set ($variable) to an absolute path"
    }
  }
  $path
}

# Whether this process is root: /proc says whose it is.
def is-root []: nothing -> bool {
  open --raw /proc/self/status | lines | any {|line| $line =~ '^Uid:\s+\d+\s+0\s' }
}

# The folder of one server.
def server-dir [
  infra: string # Namespace of the name
  name: string # Server name
]: nothing -> string {
  servers-dir | path join $infra $name
}

# All servers of an infra, by name.
def list-local [
  infra: string # Namespace of the names
]: nothing -> list<any> {
  let dir = (servers-dir | path join $infra)
  if not ($dir | path exists) { return [] }
  ls --short-names $dir
  | where type == dir
  | get name
  | sort
  | each {|name| find-local $infra $name }
  | compact
}

# One server, or null. Reads only: the state is what the kernel says now.
def find-local [
  infra: string # Namespace of the name
  name: string # Server name
]: nothing -> any {
  let dir = (server-dir $infra $name)
  let text = (read-file ($dir | path join server.json))
  if $text == null { return null }
  let server = try {
    $text | from json | select name infra provider plan created_at
  } catch {
    error make {
      msg: $"the record of server ($name) cannot be read: ($dir | path join server.json)"
      code: "provisioning::local::damaged-record"
      help: $"look at the file, or remove the server: provisioning server delete ($name) --infra ($infra)"
    }
  }
  let address = (read-file ($dir | path join address) | default "")
  {
    name: $server.name
    infra: $server.infra
    provider: $server.provider
    plan: $server.plan
    zone: "host"
    state: (if (init-pid $dir) == null { "stopped" } else { "running" })
    ip: ($address | split row "/" | first)
    id: $"($server.infra)/($server.name)"
    created_at: $server.created_at
  }
}

# The text of a file, or null if it is not there.
def read-file [
  path: string # The file
]: nothing -> any {
  let read = {|| try { open --raw $path | decode utf-8 } catch { null } }
  let text = (do $read)
  if $text != null or not ($path | path exists) { return $text }
  # A create may have put it there since.
  let text = (do $read)
  if $text == null and ($path | path exists) {
    error make {
      msg: $"cannot read ($path)"
      code: "provisioning::local::unreadable"
      help: "it belongs to another user: work as that user"
    }
  }
  $text
}

# The pid of a server's init, or null if it does not live.
#
# The start time and the boot id are compared too, so neither a number used
# again nor a host started again passes for the server.
def init-pid [
  dir: string # The server's folder
]: nothing -> any {
  let recorded = (read-file ($dir | path join init))
  if $recorded == null { return null }
  let id = ($recorded | str trim | split row " ")
  if ($id | length) != 3 { return null }
  let stat = try { open --raw $"/proc/($id.0)/stat" | decode utf-8 } catch { return null }
  let fields = ($stat | str replace --regex '(?s)\A.*\) ' "" | split row " ")
  let boot = (open --raw /proc/sys/kernel/random/boot_id | decode utf-8 | str trim)
  let alive = (
    $fields.0 not-in [Z X] and $fields.19 == $id.1 and $boot == $id.2
  )
  if $alive { $id.0 } else { null }
}

# Create a server unless it is there; says whether it was created.
def create-local [
  spec: record # What to create
]: nothing -> bool {
  let size = (parse-plan $spec.plan)
  if $spec.zone not-in ["" "host"] {
    error make {
      msg: $"local servers are in the zone host, not in ($spec.zone | to json)"
      code: "provisioning::servers::invalid-zone"
      help: "leave --zone out"
    }
  }
  let cidr = (network-of $spec.infra $spec.network)
  let record = {
    name: $spec.name
    infra: $spec.infra
    provider: "local"
    plan: $spec.plan
    labels: $spec.labels
    created_at: (date now | date to-timezone UTC | format date "%Y-%m-%dT%H:%M:%SZ")
  }
  let facts = [($record | to json --raw) ($size.cpus | into string) ($size.memory_gb | into string)]
  change create $spec.infra $spec.name ...$facts (network-name $spec.network) $cidr
}

# The name of the network that was asked for.
def network-name [
  asked: string # What was asked for; empty is the network `default`
]: nothing -> string {
  if $asked == "" { "default" } else { $asked }
}

# The block of addresses of a network of the infra's settings; empty where none is set up.
def network-of [
  infra: string # Namespace of the name
  asked: string # Name of the network; empty is `default`, if there is one
]: nothing -> string {
  let networks = (load-settings $infra).networks? | default {}
  let network = ($networks | get --optional (network-name $asked))
  if $network == null and $asked == "" { return "" }
  if $network == null {
    error make {
      msg: $"infra ($infra) has no network ($asked | to json)"
      code: "provisioning::servers::invalid-network"
      help: $"known are: ($networks | columns | str join ', '); set it up in [networks.($asked)] of the infra's settings"
    }
  }
  let parts = ($network.cidr? | default "" | parse --regex '\A(?P<a>\d{1,3})\.(?P<b>\d{1,3})\.(?P<c>\d{1,3})\.(?P<d>\d{1,3})/(?P<prefix>\d{1,2})\z')
  let numbers = ($parts | each {|found| $found | values | into int } | flatten)
  let sound = (
    ($numbers | length) == 5 and ($numbers | first 4 | all {|each| $each < 256 })
    and $numbers.4 >= 16 and $numbers.4 <= 30
  )
  if not $sound {
    error make {
      msg: $"network (network-name $asked) of infra ($infra) has no usable block of addresses: ($network.cidr? | to json)"
      code: "provisioning::servers::invalid-network"
      help: 'write an IPv4 block of /16 to /30 in its settings, such as cidr = "10.77.1.0/24"'
    }
  }
  $network.cidr
}

# Sizes to choose from; any <count>xCPU-<count>GB will do.
def list-plans []: nothing -> list<any> {
  [[name cpus memory_gb]; ["1xCPU-1GB" 1 1] ["1xCPU-2GB" 1 2] ["2xCPU-4GB" 2 4] ["4xCPU-8GB" 4 8]]
  | insert storage_gb 0
}

# Change a server under its lock; says whether anything changed.
def change [
  verb: string # create, start, stop, restart or delete
  infra: string # Namespace of the name
  name: string # Server name
  ...facts: string # For create: the text of server.json, CPUs, GB of memory, network and its block
]: nothing -> bool {
  check-programs
  let dir = (server-dir $infra $name)
  # Lock files stay: removing one would let two in.
  let locks = (servers-dir | path join $infra .locks)
  mkdir $locks
  let ended = (
    do { ^flock --exclusive --timeout 60 --conflict-exit-code 75 ($locks | path join $name) bash $script $verb $dir $name ...$facts }
    | complete
  )
  match $ended.exit_code {
    0 => (($ended.stdout | str trim) == "yes")
    $code => { explain $code $infra $name ($ended.stderr | str trim) }
  }
}

# Turn an exit code of server.bash into an error.
def explain [
  code: int # The exit code
  infra: string # Namespace of the name
  name: string # Server name
  said: string # What it printed on stderr
]: nothing -> any {
  if $code == 75 {
    let why = if $said == "" { "it is being changed for more than 60 seconds" } else { $said }
    fail-for-now "provisioning::local::busy" $"local server ($name): ($why)" --retry-after 10sec
  }
  let case = match $code {
    64 => {
      code: "provisioning::servers::not-found"
      help: $"see: provisioning server list --infra ($infra)"
    }
    69 => {
      code: "provisioning::local::user-namespaces-forbidden"
      help: ("let users make namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), "
        + "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000; "
        + "in a container, also its seccomp profile")
    }
    71 => {
      code: "provisioning::local::network-full"
      help: $"give it a larger cidr in the infra's settings, or delete a server: provisioning server list --infra ($infra)"
    }
    72 => {
      code: "provisioning::local::no-network"
      help: "see whether the host has the program ip (Debian: apt install iproute2) and lets root make bridges"
    }
    _ => { code: "provisioning::local::failed" help: "the message is what the system said" }
  }
  let said = if $said == "" { $"exit code ($code)" } else { $said }
  error make {
    msg: $"local server ($name): ($said)"
    code: $case.code
    help: $case.help
  }
  null
}

# Refuse to go on where a program that the provider runs is missing.
def check-programs []: nothing -> nothing {
  let path = ($env.PATH | split row ":" | append [/usr/sbin /sbin])
  let missing = with-env { PATH: $path } {
    $programs | where {|program| which --all $program | where type == external | is-empty }
  }
  if ($missing | is-not-empty) {
    error make {
      msg: $"programs are missing: ($missing | str join ', ')"
      code: "provisioning::local::program-missing"
      help: "on Debian: apt install util-linux mount coreutils bash mawk hostname; and look at PATH"
    }
  }
}

# What runs a command inside a running server.
#
# The command gets none of the attempt's descriptors but its output: what runs
# in the server belongs to the server.
def enter-local [
  infra: string # Namespace of the name
  name: string # Server name
  argv: list<string> # The program and its arguments
]: nothing -> record<argv: list<string>, input: string> {
  check-programs
  let dir = (server-dir $infra $name)
  let pid = (init-pid $dir)
  if $pid == null {
    error make {
      msg: $"server ($name) is stopped"
      code: "provisioning::servers::not-running"
      help: $"start it: provisioning server start ($name) --infra ($infra)"
    }
  }
  { argv: [bash ($script | path dirname | path join enter.bash) $dir $pid ...$argv] input: "" }
}
