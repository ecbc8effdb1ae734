# Providers by name, and what every server operation asks of them.

use ../providers/local.nu [local-provider]
use names.nu [check-name]
use plans.nu [parse-plan]

# The names of all providers.
export def provider-names []: nothing -> list<string> {
  [local]
}

# Load a provider by its name.
#
# A provider is a record of closures: `list {|infra| }`, `find {|infra name| }`
# (the server or null), `create {|spec| }`, `start`, `stop` and `delete
# {|infra name| }` (true if something changed), and `enter {|infra name argv| }`
# (the argv that runs another argv inside the server).
export def load-provider [
  name: string # One of `provider-names`
]: nothing -> record {
  match $name {
    "local" => { local-provider }
    _ => {
      error make {
        msg: $"there is no provider ($name | to json)"
        code: "provisioning::servers::invalid-provider"
        help: $"write --provider (provider-names | str join ' or --provider ')"
      }
    }
  }
}

# Create a server, or return the one that already has this name.
export def create-vm [
  name: string # Server name, unique in the infra
  --infra: string # Namespace of the name
  --provider: string # Where it is created
  --plan: string # Size, such as "1xCPU-1GB"
]: nothing -> record<name: string, infra: string, provider: string, plan: string, state: string, created_at: string, changed: bool> {
  check-name server $name
  check-name infra $infra
  parse-plan $plan | ignore
  let loaded = (load-provider $provider)
  let there = (do $loaded.find $infra $name)
  let changed = if $there == null {
    do $loaded.create { name: $name infra: $infra provider: $provider plan: $plan }
  } else {
    false
  }
  let server = (find-server $name --infra $infra)
  if $server.plan != $plan {
    print --stderr $"server ($name) is there already, with plan ($server.plan); ($plan) was asked for"
  }
  $server | insert changed $changed
}

# Find a server by its name, whoever provides it; an error says it is not there.
export def find-server [
  name: string # Server name
  --infra: string # Namespace of the name
]: nothing -> record<name: string, infra: string, provider: string, plan: string, state: string, created_at: string> {
  let server = (look-up $name --infra $infra)
  if $server == null {
    error make {
      msg: $"there is no server ($name) in infra ($infra)"
      code: "provisioning::servers::not-found"
      help: ($"see those that are there: provisioning server list --infra ($infra); "
        + $"make it: provisioning server create ($name) --infra ($infra)")
    }
  }
  $server
}

# Find a server by its name; null if it is not there.
export def look-up [
  name: string # Server name
  --infra: string # Namespace of the name
]: nothing -> any {
  check-name server $name
  check-name infra $infra
  for provider in (provider-names) {
    let server = (do (load-provider $provider).find $infra $name)
    if $server != null { return $server }
  }
  null
}
