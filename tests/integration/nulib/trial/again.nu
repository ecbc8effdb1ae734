# trial.again

use ../lib/operation.nu *

# Run a script of the test, which may run again.
@operation {idempotent: true}
export def trial-again [
  script: string # For sh
]: nothing -> nothing {
  ^sh -c $script
}
