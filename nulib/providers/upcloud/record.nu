# A server of the API in the words of every provider.

# A label of a server; empty if it has none of that key.
export def label [
  server: record # As the API shows it
  key: string # The label's key
]: nothing -> string {
  $server.labels?.label? | default [] | where key == $key | get --optional 0.value | default ""
}

# A server as every provider shows it.
export def shown [
  api: record # What `connect` returned
  server: record # Its details
]: nothing -> record {
  let kind = ($api.address? | default "public")
  let addresses = (
    $server.networking?.interfaces?.interface?
    | default []
    | where type == $kind
    | each {|interface| $interface.ip_addresses.ip_address }
    | flatten
    | sort-by family
  )
  {
    name: (label $server "provisioning-name")
    infra: $api.infra
    provider: "upcloud"
    plan: $server.plan
    zone: $server.zone
    state: (state-of $server.state)
    ip: ($addresses | get --optional 0.address | default "")
    id: $server.uuid
    created_at: (label $server "provisioning-created")
  }
}

# A state of the API in the words of every provider.
export def state-of [
  state: string # started, stopped, maintenance or error
]: nothing -> string {
  match $state {
    "started" => "running"
    "stopped" => "stopped"
    "error" => "error"
    _ => "starting"
  }
}
