# trial.alone

use ../lib/operation.nu *

# Run a shell script while nobody else has the thing.
@operation {idempotent: true, target: {exclusive: ["thing/{name}"]}}
export def trial-alone [
  name: string # The thing
  script: string # For sh
]: nothing -> nothing {
  ^sh -c $script
}
