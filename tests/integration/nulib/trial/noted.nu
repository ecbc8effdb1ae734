# trial.noted

use ../lib/operation.nu *

# Whether the line is in the file.
@operation {idempotent: true}
export def trial-noted [
  file: string # Absolute path
  line: string # The line
]: nothing -> nothing {
  let there = ($file | path exists) and ($line in (open --raw $file | decode utf-8 | lines))
  if not $there {
    error make { msg: "the line is not there", code: "provisioning::trial::not-found" }
  }
}
