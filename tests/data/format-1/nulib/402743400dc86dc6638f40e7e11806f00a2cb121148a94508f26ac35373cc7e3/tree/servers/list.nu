# servers.list

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider provider-names]

# List the servers of an infra, by name; `state` is running or stopped.
@operation {idempotent: true, timeout: 1min}
export def list-servers [
  --infra: string = "default" # Namespace of server names
]: nothing -> list<record<name: string, infra: string, provider: string, plan: string, state: string, created_at: string>> {
  check-name infra $infra
  mut servers = []
  for provider in (provider-names) {
    $servers = ($servers ++ (do (load-provider $provider).list $infra))
  }
  $servers | sort-by name
}
