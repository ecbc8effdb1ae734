# clusters.create

use ../lib/cluster.nu [load-cluster plan-creation taskservs-of with-dependencies]
use ../lib/operation.nu *
use ../lib/taskserv.nu [dependencies-of load-taskserv said-data]

# Plan a cluster: its servers, what is installed on them, and the gates between its groups.
#
# The tasks are done like those of any manifest; --check shows them. What is
# there already is left as it is, or brought up to date.
@operation {idempotent: true, timeout: 30sec, plans: true}
export def create-cluster [
  name: string # Name of the cluster; see cluster list
  --infra: string = "default" # Whose cluster it is
]: nothing -> list<any> {
  let cluster = (load-cluster $name $infra)
  # What is not there, or not known, is said now, and not when the servers are made.
  let depends = (dependencies-of (taskservs-of $cluster))
  for one in ($cluster.groups | each {|group| with-dependencies $group.taskservs $depends } | flatten | uniq) {
    said-data (load-taskserv $one.name) $infra $one.data | ignore
  }
  plan-creation $cluster $infra $depends
}
