# servers.create

use ../lib/operation.nu *
use ../lib/provider.nu [create-vm]

# Create a server and start it, or return the one that already has this name.
#
# A server that is there is returned as it is, even if it is stopped or was
# created with another plan; `changed` says whether this call created it.
@operation {
  idempotent: true
  timeout: 10min
  retries: 3
  target: {exclusive: ["server/{name}"]}
  undo: "servers.delete"
  probe: "servers.show"
}
export def create-server [
  name: string # Server name, unique in the infra: a host name label
  --infra: string = "default" # Namespace of server names
  --provider: string@[local] = "local" # Where the server is created
  --plan: string = "1xCPU-1GB" # Size: <count>xCPU-<count>GB; the local provider records it and sets no limit
]: nothing -> record<name: string, infra: string, provider: string, plan: string, state: string, created_at: string, changed: bool> {
  create-vm $name --infra $infra --provider $provider --plan $plan
}
