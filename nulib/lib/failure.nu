# Errors that say when trying again makes sense.

# Raise an error of something that passes: a busy host, a limit, a lost answer.
#
# The seconds travel as the error's url, `retry-after:<seconds>`, as an error of
# Nushell carries no field of one's own; the worker makes `retry_after` of it.
export def fail-for-now [
  code: string # Code of the error: `provisioning::<domain>::<case>`
  msg: string # What is wrong with which thing
  --advice: string = "it passes: try again later" # What to do
  --retry-after: duration = 5sec # How long to wait before the next attempt, at least
]: nothing -> nothing {
  let seconds = ([1 ($retry_after / 1sec | math ceil)] | math max)
  error make {
    msg: $msg
    code: $code
    help: $advice
    url: $"retry-after:($seconds)"
  }
  null
}

# The innermost code of ours in a caught error; empty if there is none.
export def code-of [
  caught: any # What `catch` was given
]: nothing -> string {
  mut level = [$caught.details]
  mut found = ""
  while ($level | is-not-empty) {
    for error in $level {
      if ($error.code? | default "") starts-with "provisioning::" { $found = $error.code }
    }
    $level = ($level | get --optional inner | compact | flatten)
  }
  $found
}

# Raise a caught error once more, with the time after which it may be tried again.
export def again [
  caught: record # What `catch` was given
]: nothing -> nothing {
  let details = $caught.details
  error make { msg: $details.msg code: $details.code help: $details.help url: ($details.url? | default "") }
  null
}
