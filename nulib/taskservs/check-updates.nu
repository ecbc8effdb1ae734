# taskservs.check-updates

use ../lib/operation.nu *
use ../lib/taskserv.nu [installed-taskservs load-taskserv running-server server-facts taskserv-data taskserv-digest taskserv-files]

# Say which taskservs of a server are not what their definitions and the infra's settings say now.
@operation {idempotent: true, timeout: 1min}
export def check-updates-of-server [
  --server: string # The server to ask
  --infra: string = "default" # Namespace of server names, and whose settings count
]: nothing -> list<record<name: string, installed: string, available: string, update: bool>> {
  let it = (running-server $server $infra)
  let facts = (server-facts $it)
  installed-taskservs $it | values | sort-by name | each {|one|
    let definition = (load-taskserv $one.name)
    let data = (taskserv-data $definition $infra $facts ($one.data? | default {}))
    let digest = (taskserv-digest $definition $data (taskserv-files $definition $data))
    { name: $one.name installed: $one.version available: $definition.version update: ($digest != $one.digest) }
  }
}
