# checks.tcp

use ../lib/operation.nu *
use ../lib/polling.nu [until-well]

# Wait until a port takes connections.
@operation {idempotent: true, timeout: 1hr}
export def check-tcp [
  host: string # Name or address
  port: int # 1 to 65535
  --within: duration = 1min # So long at most
  --every: duration = 1sec # Between two looks
]: nothing -> record<looks: int, seconds: float> {
  if $host !~ '\A[A-Za-z0-9._:%-]{1,255}\z' or $port not-in 1..65535 {
    error make {
      msg: $"($host | to json) port ($port) is no address"
      code: "provisioning::checks::invalid-address"
      help: "give a name or an address, and a port from 1 to 65535"
    }
  }
  until-well $"($host) port ($port)" {||
    let ended = (do { ^timeout 5 bash -c ': < "/dev/tcp/$0/$1"' $host ($port | into string) } | complete)
    if $ended.exit_code == 0 { null } else { "it takes no connection" }
  } --within $within --every $every
}
