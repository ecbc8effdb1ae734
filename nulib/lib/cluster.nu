# Clusters: groups of servers and what is on them, and the tasks that make one. All but `load-cluster` is pure.

use infra.nu [load-settings]
use names.nu [check-name]

const shipped = (path self ../clusters)

# The clusters that an infra can have, by name: of its settings, of `clusters/*.toml` beside them, and of nulib.
export def clusters-of [
  infra: string # Name of the infra
]: nothing -> record {
  let settings = (load-settings $infra)
  let folders = [$shipped (if $settings.folder? == null { "" } else { $settings.folder | path join clusters })]
  $folders
  | where {|folder| $folder != "" }
  | each {|folder| files-of $folder }
  | flatten
  | reduce --fold {} {|file all|
      let found = try { open --raw $file | decode utf-8 | from toml } catch {
        error make {
          msg: $"the cluster in ($file) cannot be read"
          code: "provisioning::clusters::invalid-cluster"
          help: "it must be TOML"
        }
      }
      $all | upsert ($file | path basename | str replace --regex '\.toml\z' "") $found
    }
  | merge ($settings.clusters? | default {})
}

# The TOML files of a folder. Not by `glob`: the folder's own path may have brackets.
def files-of [
  folder: string # The folder; it need not be there
]: nothing -> list<string> {
  if not ($folder | path exists) { return [] }
  ls --full-paths $folder | get name | where {|file| $file | str ends-with ".toml" } | sort
}

# The definition of a cluster, its groups in the order in which they are made.
export def load-cluster [
  name: string # Name of the cluster
  infra: string # Name of the infra
]: nothing -> record<name: string, description: string, groups: list<any>> {
  check-name cluster $name
  let known = (clusters-of $infra)
  let found = ($known | get --optional $name)
  if $found == null {
    error make {
      msg: $"infra ($infra) has no cluster ($name)"
      code: "provisioning::clusters::not-found"
      help: $"known are: ($known | columns | str join ', '); write [clusters.($name)] into its settings, or clusters/($name).toml beside them"
    }
  }
  read-cluster $name $found
}

# A cluster as it is written, checked, and its groups in order.
export def read-cluster [
  name: string # Name of the cluster
  written: record # What the file or the section says
]: nothing -> record<name: string, description: string, groups: list<any>> {
  let groups = ($written.groups? | default {} | transpose name group | each {|one|
    {
      name: $one.name
      servers: (server-names $name $one.name $one.group)
      create: ($one.group.create? | default {})
      taskservs: ($one.group.taskservs? | default [] | each {|item| if ($item | describe) == string { { name: $item data: {} } } else { { data: {} } | merge $item } })
      after: ($one.group.after? | default [])
      gates: ($one.group.gates? | default [])
    }
  })
  if ($groups | is-empty) {
    refuse $name "has no groups" $"write [clusters.($name).groups.web] with servers = 2"
  }
  let twice = ($groups | each {|group| $group.servers } | flatten | uniq --repeated)
  if ($twice | is-not-empty) {
    refuse $name $"has ($twice | str join ', ') twice" "give each server one group and one place in it, or the groups a prefix"
  }
  { name: $name description: ($written.description? | default "") groups: (in-order $name $groups) }
}

# The names of a group's servers.
def server-names [
  cluster: string # Name of the cluster
  group: string # Name of the group
  written: record # What the group says
]: nothing -> list<string> {
  check-name group $group
  let servers = $written.servers?
  let names = if ($servers | describe) == int {
    if $servers < 1 { [] } else { 1..$servers | each {|number| $"($written.prefix? | default $"($cluster)-($group)")-($number)" } }
  } else {
    $servers | default []
  }
  if ($names | is-empty) {
    refuse $cluster $"says of group ($group) no servers" "write servers = 2, or a list of names"
  }
  for name in $names { check-name server $name }
  $names
}

# Raise what is wrong with a cluster.
def refuse [
  name: string # Name of the cluster
  what: string # What is wrong
  help: string # What to do
]: nothing -> nothing {
  error make { msg: $"cluster ($name) ($what)" code: "provisioning::clusters::invalid-cluster" help: $help }
  null
}

# The groups so that each comes behind those it waits for.
def in-order [
  name: string # Name of the cluster
  groups: list<any> # The groups
]: nothing -> list<any> {
  let known = ($groups | get name)
  for group in $groups {
    let unknown = ($group.after | where {|other| $other not-in $known })
    if ($unknown | is-not-empty) {
      refuse $name $"has no group ($unknown.0), which ($group.name) comes after" $"its groups are: ($known | str join ', ')"
    }
  }
  mut sorted = []
  mut left = $groups
  while ($left | is-not-empty) {
    let done = ($sorted | get --optional name | default [])
    let next = ($left | where {|group| $group.after | all {|other| $other in $done } })
    if ($next | is-empty) {
      refuse $name $"has groups that wait for each other: ($left | get name | str join ', ')" "take one after away"
    }
    $sorted = ($sorted ++ $next)
    let taken = ($next | get name)
    $left = ($left | where {|group| $group.name not-in $taken })
  }
  $sorted
}

# The names of the taskservs of all groups.
export def taskservs-of [
  cluster: record # What `read-cluster` returned
]: nothing -> list<string> {
  $cluster.groups | each {|group| $group.taskservs | each {|one| $one.name } } | flatten | uniq
}

# The taskservs of a group with what they depend on before them, each once.
export def with-dependencies [
  wanted: list<any> # name and data of each
  depends: record # What each taskserv depends on, by name
]: nothing -> list<any> {
  mut found = []
  mut waiting = ($wanted | reverse)
  while ($waiting | is-not-empty) {
    let next = ($waiting | last)
    let above = ($waiting | get name)
    let there = ($found | get --optional name | default [])
    let lacking = ($depends | get --optional $next.name | default [] | where {|other| $other not-in $there })
    if $next.name in $there {
      $waiting = ($waiting | drop)
    } else if ($lacking | is-empty) {
      $found = ($found | append $next)
      $waiting = ($waiting | drop)
    } else if ($lacking | any {|other| $other in $above and $other not-in ($wanted | get name) }) {
      error make {
        msg: $"taskservs depend on each other: ($lacking | str join ', ') and ($next.name)"
        code: "provisioning::clusters::invalid-cluster"
        help: "look at depends in their taskserv.toml"
      }
    } else {
      let given = ($wanted | where {|one| $one.name == ($lacking | first) } | get --optional 0)
      $waiting = ($waiting | append ($given | default { name: ($lacking | first) data: {} }))
    }
  }
  $found
}

# The id of a task: whose it is and what it does. One that would be too long for an id ends with a digest of itself.
def task-id [
  whose: string # Name of a server or a group
  what: string # What is done
]: nothing -> string {
  let id = $"($whose)_($what)"
  if ($id | str length) <= 64 { return $id }
  $"($id | str substring 0..54)-($id | hash sha256 | str substring 0..7)"
}

# The tasks that make a cluster. Pure: the same data gives the same tasks.
export def plan-creation [
  cluster: record # What `read-cluster` returned
  infra: string # Namespace of the names
  depends: record # What each taskserv depends on, by name
]: nothing -> list<any> {
  mut tasks = []
  mut ends = {} # What says that a group is done, by its name
  let waited_for = ($cluster.groups | each {|group| $group.after } | flatten | uniq)
  for group in $cluster.groups {
    let done = $ends
    let before = ($group.after | each {|other| $done | get $other } | flatten)
    let taskservs = (with-dependencies $group.taskservs $depends)
    let on_servers = ($group.servers | each {|server| plan-server $server $infra $group $taskservs $before })
    let last = ($on_servers | each {|made| $made | last | get id })
    let gates = (plan-gates $group $infra $last)
    let end = if ($gates.tasks | is-empty) { $last } else { $gates.end }
    $tasks = ($tasks ++ ($on_servers | flatten) ++ $gates.tasks)
    # One task that all others can wait for, where each would have to wait for many.
    let joined = $group.name in $waited_for and ($end | length) > 1
    let joint = (task-id $group.name done)
    if $joined {
      $tasks = ($tasks | append { id: $joint operation: "selftest.noop" params: {} depends_on: $end })
    }
    $ends = ($ends | insert $group.name (if $joined { [$joint] } else { $end }))
  }
  $tasks
}

# The tasks for one server: it is created, takes commands, and gets its taskservs one after the other.
def plan-server [
  server: string # Its name
  infra: string # Namespace of the name
  group: record # Its group
  taskservs: list<any> # What it gets, in order
  before: list<string> # What must be done first
]: nothing -> list<any> {
  let create = {
    id: (task-id $server create)
    operation: "servers.create"
    params: ($group.create | merge { name: $server infra: $infra })
    depends_on: $before
  }
  if ($taskservs | is-empty) { return [$create] }
  let wait = {
    id: (task-id $server wait)
    operation: "servers.wait"
    params: { name: $server infra: $infra }
    depends_on: [$create.id]
  }
  $taskservs | reduce --fold [$create $wait] {|taskserv tasks|
    $tasks | append {
      id: (task-id $server $taskserv.name)
      operation: "taskservs.create"
      params: { name: $taskserv.name server: $server infra: $infra data: $taskserv.data }
      depends_on: [($tasks | last | get id)]
    }
  }
}

# The gates of a group, one after the other, and the tasks that end it.
def plan-gates [
  group: record # The group
  infra: string # Namespace of the names
  before: list<string> # What must be done first
]: nothing -> record<tasks: list<any>, end: list<string>> {
  $group.gates | enumerate | reduce --fold { tasks: [] end: $before } {|gate so_far|
    let params = ($gate.item.params? | default {})
    let each = ($gate.item.each? | default false)
    let made = if $each {
      $group.servers | each {|server|
        let own = match ($gate.item.operation | split row "." | first) {
          "taskservs" => { { server: $server infra: $infra } }
          "servers" => { { name: $server infra: $infra } }
          _ => { {} }
        }
        {
          id: (task-id $group.name $"gate-($gate.index + 1)_($server)")
          operation: $gate.item.operation
          params: ($own | merge (of-server $params $server))
          depends_on: $so_far.end
        }
      }
    } else {
      [{ id: (task-id $group.name $"gate-($gate.index + 1)") operation: $gate.item.operation params: $params depends_on: $so_far.end }]
    }
    { tasks: ($so_far.tasks ++ $made) end: ($made | get id) }
  }
}

# Params of a gate for one server: `{server}` in a text is its name, `{ip}` the address that it gets.
def of-server [
  value: any # A param, or all of them
  server: string # Its name
]: nothing -> any {
  let kind = ($value | describe)
  if $kind == string {
    $value | str replace --all "{server}" $server | str replace --all "{ip}" $"${tasks.(task-id $server create).result.ip}"
  } else if ($kind | str starts-with record) {
    $value | transpose key item | reduce --fold {} {|one all| $all | insert $one.key (of-server $one.item $server) }
  } else if ($kind =~ '\A(list|table)') {
    $value | each {|item| of-server $item $server }
  } else {
    $value
  }
}

# The tasks that take a cluster away, in reverse. Pure.
#
# Taskservs go first where the server stays, as a machine of the ssh provider does.
export def plan-deletion [
  cluster: record # What `read-cluster` returned
  infra: string # Namespace of the names
  depends: record # What each taskserv depends on, by name
  provider: string # Where servers of the infra are created, unless a group says otherwise
]: nothing -> list<any> {
  $cluster.groups | each {|group|
    let later = ($cluster.groups | where {|other| $group.name in $other.after } | each {|other| $other.servers } | flatten)
    let before = ($later | each {|server| task-id $server delete })
    let stays = (($group.create.provider? | default $provider) == "ssh")
    let taskservs = if $stays { with-dependencies $group.taskservs $depends | reverse } else { [] }
    $group.servers | each {|server|
      let removals = ($taskservs | reduce --fold [] {|taskserv tasks|
        $tasks | append {
          id: (task-id $server $taskserv.name)
          operation: "taskservs.delete"
          params: { name: $taskserv.name server: $server infra: $infra }
          depends_on: (if ($tasks | is-empty) { $before } else { [($tasks | last | get id)] })
        }
      })
      $removals | append {
        id: (task-id $server delete)
        operation: "servers.delete"
        params: { name: $server infra: $infra }
        depends_on: (if ($removals | is-empty) { $before } else { [($removals | last | get id)] })
      }
    } | flatten
  } | flatten
}
