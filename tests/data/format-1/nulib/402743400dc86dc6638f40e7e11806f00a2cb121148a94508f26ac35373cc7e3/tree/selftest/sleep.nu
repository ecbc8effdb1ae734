# selftest.sleep

use ../lib/operation.nu *

# Wait, and return how long it was asked to.
@operation {idempotent: true}
export def selftest-sleep [
  seconds: number # How long, in seconds; fractions count
]: nothing -> record<seconds: number> {
  if $seconds < 0 or $seconds > 86400 {
    error make {
      msg: $"cannot sleep ($seconds) seconds"
      code: "provisioning::selftest::invalid-seconds"
      help: "give a number from 0 to 86400"
    }
  }
  sleep ($seconds * 1sec)
  { seconds: $seconds }
}
