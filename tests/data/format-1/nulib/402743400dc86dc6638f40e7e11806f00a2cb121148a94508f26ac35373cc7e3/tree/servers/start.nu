# servers.start

use ../lib/operation.nu *
use ../lib/provider.nu [find-server load-provider]

# Start a stopped server, with its files as they were.
#
# Of a server that is running already it says `changed: false`.
@operation {
  idempotent: true
  timeout: 10min
  retries: 3
  target: {exclusive: ["server/{name}"]}
  undo: "servers.stop"
}
export def start-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, provider: string, plan: string, state: string, created_at: string, changed: bool> {
  let provider = (load-provider (find-server $name --infra $infra).provider)
  let changed = (do $provider.start $infra $name)
  find-server $name --infra $infra | insert changed $changed
}
