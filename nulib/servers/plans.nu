# servers.plans

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider]

# List the sizes that a provider offers.
@operation {idempotent: true, timeout: 1min}
export def list-plans [
  --infra: string = "default" # Whose settings count
  --provider: string@[local ssh upcloud aws] = "local" # The provider to ask
]: nothing -> list<record<name: string, cpus: int, memory_gb: float, storage_gb: int>> {
  check-name infra $infra
  do (load-provider $provider).plans $infra | update memory_gb { into float } | sort-by cpus memory_gb name
}
