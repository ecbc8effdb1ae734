# selftest.echo

use ../lib/operation.nu *

# Return the value that was given.
@operation {idempotent: true, timeout: 1min}
export def selftest-echo [
  value: any # Any JSON value
]: nothing -> any {
  $value
}
