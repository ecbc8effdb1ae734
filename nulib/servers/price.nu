# servers.price

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider]

# Say what a server of a plan costs; `hourly` is null where the provider has no price.
@operation {idempotent: true, timeout: 1min}
export def price-server [
  --infra: string = "default" # Whose settings count
  --provider: string@[local ssh upcloud aws] = "local" # The provider to ask
  --plan: string = "1xCPU-1GB" # Size; see server plans
  --zone: string = "" # Where; see server zones
]: nothing -> record<provider: string, plan: string, zone: string, currency: string, hourly: any, monthly: any> {
  check-name infra $infra
  let price = (do (load-provider $provider).price $infra $plan $zone)
  {
    provider: $provider
    plan: $plan
    zone: ($price.zone? | default $zone)
    currency: ($price.currency? | default "")
    hourly: $price.hourly?
    monthly: (if $price.hourly? == null { null } else { $price.hourly * 730 | math round --precision 2 })
  }
}
