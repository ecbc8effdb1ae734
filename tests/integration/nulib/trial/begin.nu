# trial.begin

use ../lib/operation.nu *

# Begin something that trial.finish ends.
@operation {undo: "trial.finish"}
export def trial-begin [
  file: string # Absolute path
]: nothing -> record<token: string> {
  { token: "t-1" }
}
