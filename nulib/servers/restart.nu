# servers.restart

use ../lib/operation.nu *
use ../lib/provider.nu [change-server]

# Restart a server: stop it, if it runs, and start it again.
#
# It may happen twice where an attempt is interrupted.
@operation {
  idempotent: true
  timeout: 15min
  retries: 3
  target: {exclusive: ["server/{name}"]}
}
export def restart-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string, changed: bool> {
  change-server restart $name --infra $infra
}
