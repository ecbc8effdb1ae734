# The `local` provider: a server is a container of namespaces on this host.
#
# It needs util-linux, coreutils, bash and hostname, no network and no root
# where the kernel lets users make namespaces. The host's programs are bound
# read-only; everything else is the server's own. A plan is recorded, not
# enforced. Files: $PROVISIONING_SERVERS/<infra>/<name>/, see local/server.bash.

const script = (path self local/server.bash)
const programs = [bash cat chmod chown cp flock hostname mount nsenter pivot_root setpriv setsid stat sync tail umount unshare]

# The closures that `load-provider` promises.
export def local-provider []: nothing -> record {
  {
    list: {|infra| list-local $infra }
    find: {|infra name| find-local $infra $name }
    create: {|spec| create-local $spec }
    start: {|infra name| change start $infra $name }
    stop: {|infra name| change stop $infra $name }
    delete: {|infra name| change delete $infra $name }
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
  let state = if (init-pid $dir) == null { "stopped" } else { "running" }
  $server | insert state $state | move state --before created_at
}

# The text of a file, or null if it is not there.
def read-file [
  path: string # The file
]: nothing -> any {
  try { open --raw $path | decode utf-8 } catch {
    if ($path | path exists) {
      error make {
        msg: $"cannot read ($path)"
        code: "provisioning::local::unreadable"
        help: "it belongs to another user: work as that user"
      }
    }
    null
  }
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
  spec: record<name: string, infra: string, provider: string, plan: string> # What to create
]: nothing -> bool {
  let created_at = (date now | date to-timezone UTC | format date "%Y-%m-%dT%H:%M:%SZ")
  change create $spec.infra $spec.name ($spec | insert created_at $created_at | to json --raw)
}

# Change a server under its lock; says whether anything changed.
def change [
  verb: string # create, start, stop or delete
  infra: string # Namespace of the name
  name: string # Server name
  ...record: string # For create: the text of server.json
]: nothing -> bool {
  check-programs
  let dir = (server-dir $infra $name)
  # Lock files stay: removing one would let two in.
  let locks = (servers-dir | path join $infra .locks)
  mkdir $locks
  let ended = (
    do { ^flock --exclusive --timeout 60 --conflict-exit-code 75 ($locks | path join $name) bash $script $verb $dir $name ...$record }
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
    75 => {
      code: "provisioning::local::busy"
      help: "another operation on this server takes longer than 60 seconds: try again later"
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
      help: "on Debian: apt install util-linux mount coreutils bash hostname; and look at PATH"
    }
  }
}

# The argv that runs a command inside a running server.
#
# The command gets none of the attempt's descriptors but its output: what runs
# in the server belongs to the server.
def enter-local [
  infra: string # Namespace of the name
  name: string # Server name
  argv: list<string> # The program and its arguments
]: nothing -> list<string> {
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
  [bash ($script | path dirname | path join enter.bash) $dir $pid ...$argv]
}
