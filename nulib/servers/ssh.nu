# servers.ssh

use ../lib/operation.nu *
use ../lib/provider.nu [find-server load-provider]

# Say how to log in to a server: the argv of a program for a terminal.
#
# `provisioning server ssh NAME` does log in. A local server is entered without ssh.
@operation {idempotent: true, timeout: 1min}
export def ssh-to-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<argv: list<string>> {
  let server = (find-server $name --infra $infra)
  { argv: (do (load-provider $server.provider).login $infra $name) }
}
