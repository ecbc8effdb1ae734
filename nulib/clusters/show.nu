# clusters.show

use ../lib/cluster.nu [load-cluster]
use ../lib/operation.nu *
use ../lib/provider.nu [load-provider providers-of]
use ../lib/taskserv.nu [installed-taskservs]

# Show the servers of a cluster, as their providers know them, and what is installed on them.
@operation {idempotent: true, timeout: 5min}
export def show-cluster [
  name: string # Name of the cluster
  --infra: string = "default" # Whose cluster it is
]: nothing -> record<name: string, description: string, servers: list<record<name: string, group: string, state: string, ip: string, taskservs: list<string>>>> {
  let cluster = (load-cluster $name $infra)
  let there = (
    providers-of $infra | each {|provider| do (load-provider $provider).list $infra } | flatten
    | reduce --fold {} {|server all| $all | insert $server.name $server }
  )
  let servers = ($cluster.groups | each {|group|
    $group.servers | par-each --keep-order {|name|
      let server = ($there | get --optional $name)
      let taskservs = if $server.state? == "running" { installed-taskservs $server | columns | sort } else { [] }
      { name: $name group: $group.name state: ($server.state? | default "absent") ip: ($server.ip? | default "") taskservs: $taskservs }
    }
  } | flatten)
  { name: $cluster.name description: $cluster.description servers: $servers }
}
