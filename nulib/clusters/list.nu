# clusters.list

use ../lib/cluster.nu [clusters-of read-cluster]
use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider providers-of]

# List the clusters of an infra, and how many of their servers are running.
@operation {idempotent: true, timeout: 5min}
export def list-clusters [
  --infra: string = "default" # Whose clusters
]: nothing -> list<record<name: string, description: string, groups: int, servers: int, running: int>> {
  check-name infra $infra
  let running = (
    providers-of $infra
    | each {|provider| do (load-provider $provider).list $infra }
    | flatten
    | where state == running
    | get --optional name
    | default []
  )
  clusters-of $infra | transpose name written | sort-by name | each {|one|
    let cluster = (read-cluster $one.name $one.written)
    let servers = ($cluster.groups | each {|group| $group.servers } | flatten)
    {
      name: $cluster.name
      description: $cluster.description
      groups: ($cluster.groups | length)
      servers: ($servers | length)
      running: ($servers | where {|server| $server in $running } | length)
    }
  }
}
