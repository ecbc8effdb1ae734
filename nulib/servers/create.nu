# servers.create

use ../lib/operation.nu *
use ../lib/provider.nu [create-vm]

# Create a server and start it, or return the one that already has this name.
#
# A server that is there is returned as it is, even if it is stopped or was
# created with another plan; `changed` says whether this call created it. What
# is not said comes from the infra's settings.
@operation {
  idempotent: true
  timeout: 15min
  retries: 3
  target: {exclusive: ["server/{name}"]}
  undo: "servers.delete"
  probe: "servers.show"
}
export def create-server [
  name: string # Server name, unique in the infra: a host name label
  --infra: string = "default" # Namespace of server names, and whose settings count
  --provider: string@[local ssh upcloud aws] = "local" # Where the server is created
  --plan: string = "1xCPU-1GB" # Size: <count>xCPU-<count>GB, or a name of the provider; see server plans
  --zone: string = "" # Where the provider places it; see server zones
  --image: string = "" # Template or image to start from, where the provider has them
  --network: string = "" # A network of the infra's settings; empty is the one called default, if there is one
  --labels: record = {} # Labels of one's own, names to texts
  --ssh-keys: list<string> = [] # Public keys that may log in, beside those of the infra's settings
]: nothing -> record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string, changed: bool> {
  create-vm {
    name: $name
    infra: $infra
    provider: $provider
    plan: $plan
    zone: $zone
    image: $image
    network: $network
    labels: $labels
    ssh_keys: $ssh_keys
  }
}
