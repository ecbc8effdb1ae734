# servers.wait

use ../lib/failure.nu [fail-for-now]
use ../lib/operation.nu *
use ../lib/provider.nu [find-server run-in-server]

# Wait until a server runs and takes commands.
#
# After the time it fails with provisioning::servers::not-ready, which is worth
# another attempt.
@operation {idempotent: true, timeout: 1hr, retries: 2, target: {shared: ["server/{name}"]}}
export def wait-for-server [
  name: string # Server name
  --infra: string = "default" # Namespace of server names
  --max: duration = 5min # How long to wait
  --interval: duration = 2sec # Between two looks
]: nothing -> record<name: string, infra: string, provider: string, plan: string, zone: string, state: string, ip: string, id: string, created_at: string> {
  let until = ((date now) + $max)
  mut server = (find-server $name --infra $infra)
  while not (takes-commands $server) {
    if (date now) + $interval > $until {
      fail-for-now "provisioning::servers::not-ready" $"server ($name) is ($server.state) and takes no commands after ($max)"
    }
    sleep $interval
    $server = (find-server $name --infra $infra)
  }
  $server
}

# Whether a server runs, and a command in it too.
def takes-commands [
  server: record # What `find-server` returned
]: nothing -> bool {
  $server.state == "running" and (try { (run-in-server $server ["true"] --quiet).exit_code == 0 } catch { false })
}
