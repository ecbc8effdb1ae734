# trial.shell

use ../lib/operation.nu *

# Run a script of the test, which must not run twice.
@operation {idempotent: false}
export def trial-shell [
  script: string # For sh
]: nothing -> nothing {
  ^sh -c $script
}
