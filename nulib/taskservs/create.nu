# taskservs.create

use ../lib/operation.nu *
use ../lib/taskserv.nu [
  installed-taskservs load-taskserv on-server running-server server-facts take-step taskserv-data taskserv-digest taskserv-files
]

# Install a taskserv on a server, or bring it up to date there.
#
# What is there already is held against what should be: files that differ are
# put back, and the service is reloaded then. `changed` says whether anything was.
@operation {
  idempotent: true
  timeout: 30min
  retries: 2
  target: {exclusive: ["server/{server}"]}
  undo: "taskservs.delete"
  check: "check"
}
export def create-taskserv [
  name: string # Name of the taskserv; see taskserv list
  --server: string # The server to install it on
  --infra: string = "default" # Namespace of server names, and whose settings count
  --data: record = {} # What differs from its defaults and from the infra's [taskservs.<name>]
  --check # Say which files would change, and change nothing
]: nothing -> record<name: string, server: string, infra: string, version: string, changed: bool, files: list<string>> {
  let definition = (load-taskserv $name)
  let it = (running-server $server $infra)
  let filled = (taskserv-data $definition $infra (server-facts $it) $data)
  let files = (taskserv-files $definition $filled)
  let there = (installed-taskservs $it)
  let lacking = ($definition.depends | where {|other| ($there | get --optional $other) == null })
  if ($lacking | is-not-empty) {
    error make {
      msg: $"taskserv ($name) needs ($lacking | str join ', ') on server ($server) first"
      code: "provisioning::taskservs::invalid-dependency"
      help: $"install it: provisioning taskserv create ($lacking.0) --server ($server) --infra ($infra)"
    }
  }
  let differing = (differing-files $it $files)
  let known = ($there | get --optional $name)
  let digest = (taskserv-digest $definition $filled $files)
  let answer = { name: $name server: $server infra: $infra version: $definition.version }
  if $check {
    let changes = ($differing != [] or $known.digest? != $digest)
    return ($answer | insert changed $changes | insert files $differing)
  }
  let step = if $known == null { "install" } else { "update" }
  let changed = (take-step $definition $step $it $filled $files).changed
  # Last: what is recorded is whole.
  let record = { name: $name version: $definition.version digest: $digest data: $data }
  if $known.digest? != $digest { on-server $it record $name --input $"($record | to json --raw)\n" | ignore }
  $answer | insert changed ($changed or $known.digest? != $digest) | insert files $differing
}

# The paths of the files that the server has otherwise, or not at all.
def differing-files [
  server: record # What `running-server` returned
  files: list<any> # What `taskserv-files` returned
]: nothing -> list<string> {
  if ($files | is-empty) { return [] }
  let digests = (on-server $server digests ...($files | get path) | lines)
  $files | zip $digests | where {|pair| $pair.0.digest != $pair.1 } | each {|pair| $pair.0.path }
}
