# What UpCloud offers: plans, zones, templates and prices.

use api.nu [call]

# The uuid of a template, by its uuid or its title.
export def template-of [
  api: record # What `connect` returned
  image: string # What was asked for; empty is the one of the settings
]: nothing -> string {
  let wanted = if $image != "" { $image } else { $api.template? | default "" }
  if $wanted =~ '\A[0-9a-f]{8}-[0-9a-f-]{27}\z' { return $wanted }
  let found = ((call $api GET /storage/template).storages.storage | where title == $wanted)
  if ($found | is-empty) {
    error make {
      msg: $"UpCloud has no template ($wanted | to json)"
      code: "provisioning::upcloud::invalid-request"
      help: "write its uuid or its exact title, as --image or as template in [upcloud]"
    }
  }
  ($found | first).uuid
}

# The sizes that can be created.
export def list-plans [
  api: record # What `connect` returned
]: nothing -> list<any> {
  (call $api GET /plan).plans.plan | each {|plan|
    {
      name: $plan.name
      cpus: ($plan.core_number | into int)
      memory_gb: (($plan.memory_amount | into int) / 1024)
      storage_gb: ($plan.storage_size | into int)
    }
  }
}

# The zones where servers can be created.
export def list-zones [
  api: record # What `connect` returned
]: nothing -> list<any> {
  (call $api GET /zone).zones.zone | each {|zone| { id: $zone.id description: $zone.description } }
}

# What a plan costs in a zone: the API counts in cents.
export def price-of [
  api: record # What `connect` returned
  plan: string # Name of the plan
  zone: string # Where; empty is the zone of the settings
]: nothing -> any {
  let zone = if $zone != "" { $zone } else { $api.zone? | default "" }
  let prices = ((call $api GET /price).prices.zone | where name == $zone | get --optional 0)
  let found = if $prices == null { null } else { $prices | get --optional $"server_plan_($plan)" }
  if $found == null {
    error make {
      msg: $"UpCloud has no price for plan ($plan | to json) in zone ($zone | to json)"
      code: "provisioning::upcloud::invalid-request"
      help: $"see: provisioning server plans --provider upcloud --infra ($api.infra), and server zones"
    }
  }
  { zone: $zone currency: "EUR" hourly: ($found.price / ($found.amount * 100)) }
}
