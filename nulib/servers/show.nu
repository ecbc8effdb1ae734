# servers.show

use ../lib/operation.nu *
use ../lib/provider.nu [find-server]

# Show one server; `state` is running, stopped, starting, error or unreachable.
#
# A server that is not there is the error provisioning::servers::not-found: so
# this is also the probe that says whether an interrupted create is done.
@operation {idempotent: true, timeout: 1min}
export def show-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
]: nothing -> record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string> {
  find-server $name --infra $infra
}
