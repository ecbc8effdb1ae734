# trial.note

use ../lib/operation.nu *

# Append a line to a file, which must not be done twice; its probe can tell whether it was.
@operation {idempotent: false, probe: "trial.noted"}
export def trial-note [
  file: string # Absolute path
  line: string # The line
]: nothing -> nothing {
  $"($line)\n" | ^tee --append -- $file | ignore
}
