# taskservs.check

use ../lib/operation.nu *
use ../lib/taskserv.nu [installed-taskservs load-taskserv running-server server-facts take-step taskserv-data taskserv-files]

# Check that a taskserv works on a server; one that does not answer is an error.
@operation {idempotent: true, timeout: 5min, retries: 2, target: {shared: ["server/{server}"]}}
export def check-taskserv [
  name: string # Name of the taskserv
  --server: string # The server that has it
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, server: string, version: string, healthy: bool> {
  let definition = (load-taskserv $name)
  let it = (running-server $server $infra)
  let there = (installed-taskservs $it | get --optional $name)
  if $there == null {
    error make {
      msg: $"server ($server) has no taskserv ($name)"
      code: "provisioning::taskservs::not-found"
      help: $"install it: provisioning taskserv create ($name) --server ($server) --infra ($infra)"
    }
  }
  let data = (taskserv-data $definition $infra (server-facts $it) $there.data)
  take-step $definition check $it $data (taskserv-files $definition $data) | ignore
  { name: $name server: $server version: $there.version healthy: true }
}
