# servers.stop

use ../lib/operation.nu *
use ../lib/provider.nu [find-server load-provider]

# Stop a server: end all its processes and keep its files.
#
# Of a server that is stopped already it says `changed: false`.
@operation {
  idempotent: true
  timeout: 10min
  retries: 3
  target: {exclusive: ["server/{name}"]}
  undo: "servers.start"
}
export def stop-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, provider: string, plan: string, state: string, created_at: string, changed: bool> {
  let provider = (load-provider (find-server $name --infra $infra).provider)
  let changed = (do $provider.stop $infra $name)
  find-server $name --infra $infra | insert changed $changed
}
