# trial.sharing

use ../lib/operation.nu *

# Run a shell script while others may have the thing too.
@operation {idempotent: true, target: {shared: ["thing/{name}"]}}
export def trial-sharing [
  name: string # The thing
  script: string # For sh
]: nothing -> nothing {
  ^sh -c $script
}
