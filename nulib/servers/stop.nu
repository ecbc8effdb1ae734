# servers.stop

use ../lib/operation.nu *
use ../lib/provider.nu [change-server]

# Stop a server: end all its processes and keep its files.
#
# Of a server that is stopped already it says `changed: false`.
@operation {
  idempotent: true
  timeout: 15min
  retries: 3
  target: {exclusive: ["server/{name}"]}
  undo: "servers.start"
}
export def stop-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string, changed: bool> {
  change-server stop $name --infra $infra
}
