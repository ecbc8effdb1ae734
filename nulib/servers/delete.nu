# servers.delete

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider providers-of]

# Delete a server: end all its processes and remove its files for good.
#
# Of a server that is not there it says `changed: false`. What an interrupted
# create left is removed too. A machine of the ssh provider is only forgotten.
@operation {
  idempotent: true
  timeout: 15min
  retries: 3
  target: {exclusive: ["server/{name}"]}
}
export def delete-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, changed: bool> {
  check-name server $name
  check-name infra $infra
  mut changed = false
  for provider in (providers-of $infra) {
    if (do (load-provider $provider).delete $infra $name) { $changed = true }
  }
  { name: $name infra: $infra changed: $changed }
}
