# taskservs.list

use ../lib/operation.nu *
use ../lib/taskserv.nu [installed-taskservs load-taskserv running-server taskserv-names]

# List the taskservs that are defined, or those that a server has.
@operation {idempotent: true, timeout: 1min}
export def list-taskservs [
  --server: string = "" # The server to ask; empty lists what is defined
  --infra: string = "default" # Namespace of server names
]: nothing -> list<record<name: string, version: string, description: string>> {
  if $server == "" {
    return (taskserv-names | each {|name|
      try { load-taskserv $name | select name version description } catch {|caught|
        { name: $name version: "" description: $caught.msg }
      }
    })
  }
  installed-taskservs (running-server $server $infra) | values | sort-by name | each {|one|
    { name: $one.name version: $one.version description: (try { (load-taskserv $one.name).description } catch { "" }) }
  }
}
