# taskservs.generate

use ../lib/names.nu [check-name]
use ../lib/operation.nu *
use ../lib/taskserv.nu [load-taskserv taskserv-data taskserv-files]

# Write the configuration of a taskserv into a folder here, and apply nothing.
#
# The folder gets every file at the path that it has on the server.
@operation {idempotent: true, timeout: 1min}
export def generate-taskserv [
  name: string # Name of the taskserv
  --out: string # Absolute path of a folder; it is made where it is not there
  --server: string = "server" # Name of the server that it is for; it need not be there
  --ip: string = "192.0.2.1" # Its address
  --infra: string = "default" # Whose settings count
  --data: record = {} # What differs from its defaults and from the infra's
]: nothing -> list<record<path: string, file: string, mode: string, digest: string>> {
  check-name server $server
  if not ($out | default "" | str starts-with "/") {
    error make {
      msg: $"not an absolute path: ($out | to json)"
      code: "provisioning::taskservs::invalid-folder"
      help: "give the absolute path of a folder: --out /tmp/nginx"
    }
  }
  let definition = (load-taskserv $name)
  let facts = { name: $server infra: $infra ip: $ip single_user: false }
  let data = (taskserv-data $definition $infra $facts $data)
  taskserv-files $definition $data | each {|file|
    let target = ($out | path join ($file.path | str trim --left --char "/"))
    mkdir ($target | path dirname)
    $file.content | save --force --raw $target
    { path: $file.path file: $target mode: $file.mode digest: $file.digest }
  }
}
