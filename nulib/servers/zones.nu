# servers.zones

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider]

# List the places where a provider creates servers.
@operation {idempotent: true, timeout: 1min}
export def list-zones [
  --infra: string = "default" # Whose settings count
  --provider: string@[local ssh upcloud aws] = "local" # The provider to ask
]: nothing -> list<record<id: string, description: string>> {
  check-name infra $infra
  do (load-provider $provider).zones $infra | sort-by id
}
