# taskservs.delete

use ../lib/operation.nu *
use ../lib/provider.nu [look-up]
use ../lib/taskserv.nu [
  installed-taskservs load-taskserv on-server running-server server-facts take-step taskserv-data taskserv-files taskserv-names
]

# Remove a taskserv from a server: stop it and take its files away. Its packages and its data stay.
#
# Of one that is not there, or whose server is not, it says `changed: false`. One that another needs is refused.
@operation {idempotent: true, timeout: 15min, retries: 2, target: {exclusive: ["server/{server}"]}}
export def delete-taskserv [
  name: string # Name of the taskserv
  --server: string # The server to remove it from
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, server: string, infra: string, changed: bool> {
  let definition = (load-taskserv $name)
  if (look-up $server --infra $infra) == null {
    return { name: $name server: $server infra: $infra changed: false }
  }
  let it = (running-server $server $infra)
  let there = (installed-taskservs $it)
  # What is not defined here any more needs nothing that is known.
  let users = (
    taskserv-names | where {|other| $other in $there and $other != $name and $name in (load-taskserv $other).depends }
  )
  if ($users | is-not-empty) {
    error make {
      msg: $"taskserv ($name) on server ($server) is needed by ($users | str join ', ')"
      code: "provisioning::taskservs::invalid-removal"
      help: $"remove that first: provisioning taskserv delete ($users.0) --server ($server) --infra ($infra)"
    }
  }
  let given = ($there | get --optional $name | default {}).data? | default {}
  let data = (taskserv-data $definition $infra (server-facts $it) $given)
  let files = (taskserv-files $definition $data)
  let changed = (take-step $definition remove $it $data $files).changed
  on-server $it forget $name | ignore
  { name: $name server: $server infra: $infra changed: ($changed or ($there | get --optional $name) != null) }
}
