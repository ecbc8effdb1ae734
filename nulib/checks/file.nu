# checks.file

use ../lib/operation.nu *
use ../lib/polling.nu [until-well]

# Wait until a file on this host is there, and has a text in it if one is given.
@operation {idempotent: true, timeout: 1hr}
export def check-file [
  path: string # Absolute path
  --contains: string = "" # A text that must be in it
  --within: duration = 1min # So long at most
  --every: duration = 1sec # Between two looks
]: nothing -> record<looks: int, seconds: float> {
  if not ($path | str starts-with "/") {
    error make {
      msg: $"not an absolute path: ($path | to json)"
      code: "provisioning::checks::invalid-path"
      help: "give a path that starts with /"
    }
  }
  until-well $path {||
    if not ($path | path exists) {
      "it is not there"
    } else if $contains == "" {
      null
    } else {
      let text = (try { open --raw $path | decode utf-8 } catch { "" })
      if ($text | str contains $contains) { null } else { $"it does not contain ($contains | to json)" }
    }
  } --within $within --every $every
}
