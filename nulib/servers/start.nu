# servers.start

use ../lib/operation.nu *
use ../lib/provider.nu [change-server]

# Start a stopped server, with its files as they were.
#
# Of a server that is running already it says `changed: false`.
@operation {
  idempotent: true
  timeout: 15min
  retries: 3
  target: {exclusive: ["server/{name}"]}
  undo: "servers.stop"
}
export def start-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string, changed: bool> {
  change-server start $name --infra $infra
}
