# trial.probe

use ../lib/operation.nu *

# Say whether the work of trial.probed is done.
@operation {idempotent: true}
export def trial-probe [
  --found: string@[done nothing unclear] = "done" # What to say
]: nothing -> record<found: string> {
  match $found {
    "done" => { found: "by the probe" }
    "nothing" => (error make { msg: "it is not there" code: "provisioning::trial::not-found" })
    _ => (error make { msg: "there is no answer" code: "provisioning::trial::no-answer" })
  }
}
