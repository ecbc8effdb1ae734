# trial.finish

use ../lib/operation.nu *

# End what trial.begin began, and leave the token in the file.
@operation {idempotent: true}
export def trial-finish [
  file: string # Absolute path
  token: string # What trial.begin returned
  --more: string = "more" # Not of trial.begin
]: nothing -> nothing {
  $"($token) ($more)\n" | save --append $file
}
