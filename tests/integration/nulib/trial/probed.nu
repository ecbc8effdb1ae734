# trial.probed

use ../lib/operation.nu *

# Run a script of the test, which must not run twice and can be asked for.
@operation {idempotent: false, probe: "trial.probe"}
export def trial-probed [
  script: string # For sh
  --found: string@[done nothing unclear] = "done" # What its probe will find
]: nothing -> record<found: string> {
  ^sh -c $script
  { found: "by itself" }
}
