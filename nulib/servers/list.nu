# servers.list

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider providers-of]

# List the servers of an infra, by name, as their providers know them now.
@operation {idempotent: true, timeout: 5min}
export def list-servers [
  --infra: string = "default" # Namespace of server names
]: nothing -> list<record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string>> {
  check-name infra $infra
  mut servers = []
  for provider in (providers-of $infra) {
    $servers = ($servers ++ (do (load-provider $provider).list $infra))
  }
  $servers | sort-by name
}
