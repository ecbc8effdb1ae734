# Taskservs: their definitions, the data they are configured with, and what a server has of them.

use failure.nu [code-of]
use infra.nu [load-settings path-of]
use names.nu [check-name]
use provider.nu [find-server run-in-server]
use template.nu [fill-template]

const definitions = (path self ../taskservs)
const script = (path self server.bash)

# The names of all taskservs that are defined.
export def taskserv-names []: nothing -> list<string> {
  # Not by `glob`: the folder's own path may have brackets.
  ls --short-names $definitions | get name | where {|name| $definitions | path join $name taskserv.toml | path exists } | sort
}

# The definition of a taskserv: its taskserv.toml, with `name` and `folder`.
export def load-taskserv [
  name: string # Name of the taskserv
]: nothing -> record {
  check-name taskserv $name
  let folder = ($definitions | path join $name)
  if not ($folder | path join taskserv.toml | path exists) {
    error make {
      msg: $"there is no taskserv ($name)"
      code: "provisioning::taskservs::not-found"
      help: $"known are: (taskserv-names | str join ', '); one more is a folder with a taskserv.toml, see nulib/taskservs/README.md"
    }
  }
  let found = try { open --raw ($folder | path join taskserv.toml) | decode utf-8 | from toml } catch {|caught|
    refuse $name $"its taskserv.toml cannot be read: ($caught.details.help? | default $caught.msg)"
  }
  let definition = (
    { description: "" version: "" packages: [] programs: [] depends: [] files: [] data: {} }
    | merge $found
    | insert name $name
    | insert folder $folder
  )
  if not ($folder | path join steps.nu | path exists) { refuse $name "it has no steps.nu" }
  for file in $definition.files {
    if ($file.path? | default "") !~ '\A/' { refuse $name "a file of it has no absolute path" }
    let template = ($file.template? | default "")
    if $template !~ '\A[A-Za-z0-9][A-Za-z0-9._-]*\z' or not ($folder | path join templates $template | path exists) {
      refuse $name $"it has no template ($template | to json) for ($file.path)"
    }
  }
  $definition
}

# Raise what is wrong with a definition.
def refuse [
  name: string # Name of the taskserv
  what: string # What is wrong
]: nothing -> any {
  error make {
    msg: $"taskserv ($name) cannot be used: ($what)"
    code: "provisioning::taskservs::invalid-definition"
    help: $"see nulib/taskservs/README.md; its folder is ($definitions | path join $name)"
  }
  null
}

# What each of some taskservs depends on, and what these depend on, by name.
export def dependencies-of [
  names: list<string> # Names of taskservs
]: nothing -> record {
  mut found = {}
  mut left = $names
  while ($left | is-not-empty) {
    let known = ($found | columns)
    let next = ($left | uniq | where {|name| $name not-in $known })
    $found = ($next | reduce --fold $found {|name all| $all | insert $name (load-taskserv $name).depends })
    $left = ($next | each {|name| (load-taskserv $name).depends } | flatten)
  }
  $found
}

# What a taskserv is configured with on a server: defaults < infra < what was given.
export def taskserv-data [
  definition: record # What `load-taskserv` returned
  infra: string # Whose settings count
  server: record # What `server-facts` returned: `server` in templates
  given: record # What the caller says
]: nothing -> record {
  $definition.data | merge (said-data $definition $infra $given) | insert server $server
}

# What an infra's settings and a caller say of a taskserv's data; a name that it does not know is an error.
export def said-data [
  definition: record # What `load-taskserv` returned
  infra: string # Whose settings count
  given: record # What the caller says
]: nothing -> record {
  let settings = (load-settings $infra)
  let own = ($settings.taskservs? | default {} | get --optional $definition.name | default {})
  let unknown = ($own | columns | append ($given | columns) | uniq | where {|key| $key not-in ($definition.data | columns) })
  if ($unknown | is-not-empty) {
    error make {
      msg: $"taskserv ($definition.name) knows no ($unknown | str join ', ')"
      code: "provisioning::taskservs::invalid-data"
      help: $"known are: ($definition.data | columns | str join ', ')"
    }
  }
  $own | merge $given
}

# What templates may know of a server.
export def server-facts [
  server: record # What `running-server` returned
]: nothing -> record<name: string, infra: string, ip: string, single_user: bool> {
  # Only a local server that root did not make has no user but its root.
  let single = ($server.provider == "local" and (on-server $server users | into int) == 1)
  { name: $server.name infra: $server.infra ip: $server.ip single_user: $single }
}

# The files of a taskserv, made from its templates.
export def taskserv-files [
  definition: record # What `load-taskserv` returned
  data: record # What `taskserv-data` returned
]: nothing -> list<any> {
  $definition.files | each {|file|
    let path = ($definition.folder | path join templates $file.template)
    let content = (fill-template (open --raw $path | decode utf-8) $data --file $"($definition.name)/templates/($file.template)")
    {
      path: $file.path
      mode: ($file.mode? | default "0644")
      owner: ($file.owner? | default "root:root")
      content: $content
      digest: ($content | hash sha256)
    }
  }
}

# What tells one configuration of a taskserv from another.
export def taskserv-digest [
  definition: record # What `load-taskserv` returned
  data: record # What `taskserv-data` returned
  files: list<any> # What `taskserv-files` returned
]: nothing -> string {
  { version: $definition.version data: ($data | reject server) files: ($files | select path mode owner digest) } | to json --raw | hash sha256
}

# Run server.bash in a server; its stdout. An error says what it said.
export def on-server [
  server: record # What `find-server` returned
  ...words: string # The words of server.bash
  --input: string = "" # What it reads on its stdin
]: nothing -> string {
  let argv = [bash -c (open --raw $script | decode utf-8) server ...$words]
  let ended = (run-in-server $server $argv --input $input --quiet)
  if $ended.exit_code != 0 {
    error make {
      msg: $"server ($server.name): ($words | first 2 | str join ' ') ended with exit code ($ended.exit_code): ($ended.stderr | str trim)"
      code: "provisioning::taskservs::step-failed"
      help: $"look at the server: provisioning server exec ($server.name) --infra ($server.infra) -- sh"
    }
  }
  if $ended.truncated {
    error make {
      msg: $"server ($server.name): ($words | first) says more than can be taken"
      code: "provisioning::taskservs::step-failed"
      help: "look at /var/lib/provisioning/taskservs on the server"
    }
  }
  $ended.stdout
}

# What a server has: the record of each taskserv that was installed on it, by name. A damaged one counts as none.
export def installed-taskservs [
  server: record # What `find-server` returned
]: nothing -> record {
  on-server $server records | lines | where {|line| $line != "" } | reduce --fold {} {|line all|
    let one = try { { data: {} } | merge ($line | from json) } catch { {} }
    let sound = ([name version digest] | all {|key| ($one | get --optional $key | describe) == string })
    if $sound and ($one.data | describe) starts-with record {
      $all | upsert $one.name $one
    } else {
      print --stderr $"server ($server.name) has a damaged record in /var/lib/provisioning/taskservs: it counts as none"
      $all
    }
  }
}

# Find a running server by its name.
export def running-server [
  name: string # Server name
  infra: string # Namespace of the name
]: nothing -> record {
  let server = (find-server $name --infra $infra)
  if $server.state != "running" {
    error make {
      msg: $"server ($name) is ($server.state)"
      code: "provisioning::servers::not-running"
      help: $"start it: provisioning server start ($name) --infra ($infra)"
    }
  }
  $server
}

# Take a step of a taskserv on a server, in a process of its own: `install`, `update`, `remove` or `check`.
#
# The steps are in its folder and known by name only, and Nushell loads nothing
# by a name of the moment.
export def take-step [
  definition: record # What `load-taskserv` returned
  step: string # Which
  server: record # What `running-server` returned
  data: record # What `taskserv-data` returned
  files: list<any> # What `taskserv-files` returned
]: nothing -> record<changed: bool> {
  let settings = (load-settings $server.infra)
  let request = {
    step: $step
    definition: $definition
    server: $server
    data: $data
    files: $files
    bundle: (bundle-of $settings $definition.name)
    offline: ($settings.offline? | default false)
  }
  let steps = ($definition.folder | path join steps.nu)
  # Its stderr is the attempt's log; the last line of its stdout is the answer.
  let answer = try {
    let said = ($request | to json --raw | ^$nu.current-exe --no-config-file --no-std-lib --stdin $steps | collect)
    # `from json` takes more than JSON: what is no answer may still be read.
    $said | str trim | lines | last | from json | select --optional changed error
  } catch {|caught|
    { why: $caught.msg }
  }
  if $answer.changed? == null and $answer.error? == null {
    error make {
      msg: $"taskserv ($definition.name) on server ($server.name): the step ($step) gave no answer ($answer.why? | default '')"
      code: "provisioning::taskservs::step-failed"
      help: $"the log has what it said; ($steps) must end with take-steps"
    }
  }
  if $answer.error? != null {
    error make { msg: $answer.error.msg code: $answer.error.code help: $answer.error.help url: $answer.error.url }
  }
  { changed: $answer.changed }
}

# Where the files are that were carried along for a taskserv; empty if none were.
def bundle-of [
  settings: record # What `load-settings` returned
  name: string # Name of the taskserv
]: nothing -> string {
  if $settings.bundle? == null { return "" }
  let folder = (path-of $settings $settings.bundle | path join $name)
  if ($folder | path join SHA256SUMS | path exists) { $folder } else { "" }
}
