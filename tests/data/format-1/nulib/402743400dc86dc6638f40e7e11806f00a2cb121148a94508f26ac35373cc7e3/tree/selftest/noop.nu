# selftest.noop

use ../lib/operation.nu *

# Do nothing, and succeed.
@operation {idempotent: true, timeout: 1min}
export def selftest-noop []: nothing -> nothing { }
