# clusters.create

use ../lib/cluster.nu [load-cluster plan-creation]
use ../lib/operation.nu *
use ../lib/taskserv.nu [load-taskserv taskserv-names]

# Plan a cluster: its servers, what is installed on them, and the gates between its groups.
#
# The tasks are done like those of any manifest; --check shows them. What is
# there already is left as it is, or brought up to date.
@operation {idempotent: true, timeout: 30sec, plans: true}
export def create-cluster [
  name: string # Name of the cluster; see cluster list
  --infra: string = "default" # Whose cluster it is
]: nothing -> list<any> {
  let depends = (taskserv-names | reduce --fold {} {|one all| $all | insert $one (load-taskserv $one).depends })
  plan-creation (load-cluster $name $infra) $infra $depends
}
