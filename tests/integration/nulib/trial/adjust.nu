# trial.adjust

use ../lib/operation.nu *

# Make a file say that text; its folder must be there.
@operation {idempotent: true, check: "check", target: {exclusive: ["file/{path}"]}}
export def trial-adjust [
  path: string # The file
  text: string # What it is to say
  --check # Say whether it would change, and change nothing
]: nothing -> record<path: string, before: string, changed: bool> {
  if not ($path | path dirname | path exists) {
    error make { msg: $"there is no folder for ($path)", code: "provisioning::trial::not-found" }
  }
  let before = if ($path | path exists) { open --raw $path } else { "" }
  if $before != $text and not $check { $text | save --force $path }
  { path: $path before: $before changed: ($before != $text) }
}
