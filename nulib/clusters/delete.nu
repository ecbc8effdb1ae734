# clusters.delete

use ../lib/cluster.nu [load-cluster plan-deletion]
use ../lib/infra.nu [load-settings]
use ../lib/operation.nu *
use ../lib/taskserv.nu [load-taskserv taskserv-names]

# Plan the end of a cluster: its servers are deleted, the groups in reverse.
@operation {idempotent: true, timeout: 30sec, plans: true}
export def delete-cluster [
  name: string # Name of the cluster; see cluster list
  --infra: string = "default" # Whose cluster it is
]: nothing -> list<any> {
  let depends = (taskserv-names | reduce --fold {} {|one all| $all | insert $one (load-taskserv $one).depends })
  let provider = ((load-settings $infra).provider? | default "local")
  plan-deletion (load-cluster $name $infra) $infra $depends $provider
}
