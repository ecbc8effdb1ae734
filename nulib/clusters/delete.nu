# clusters.delete

use ../lib/cluster.nu [load-cluster plan-deletion taskservs-of]
use ../lib/infra.nu [load-settings]
use ../lib/operation.nu *
use ../lib/taskserv.nu [dependencies-of taskserv-names]

# Plan the end of a cluster: its servers are deleted, the groups in reverse.
@operation {idempotent: true, timeout: 30sec, plans: true}
export def delete-cluster [
  name: string # Name of the cluster; see cluster list
  --infra: string = "default" # Whose cluster it is
]: nothing -> list<any> {
  let cluster = (load-cluster $name $infra)
  let provider = ((load-settings $infra).provider? | default "local")
  # What is not defined any more keeps no server.
  let defined = (taskserv-names)
  let taskservs = (taskservs-of $cluster | where {|one| $one in $defined })
  plan-deletion $cluster $infra (dependencies-of $taskservs) $provider
}
