# checks.http

use ../lib/operation.nu *
use ../lib/polling.nu [until-well]

# Wait until a URL answers as it should.
@operation {idempotent: true, timeout: 1hr}
export def check-http [
  url: string # http:// or https://
  --status: int = 200 # The status that it must answer with
  --contains: string = "" # A text that must be in its answer
  --within: duration = 1min # So long at most
  --every: duration = 1sec # Between two looks
]: nothing -> record<looks: int, seconds: float> {
  if $url !~ '\Ahttps?://[^\s]+\z' {
    error make {
      msg: $"($url | to json) is no URL"
      code: "provisioning::checks::invalid-url"
      help: "write http:// or https:// and what follows"
    }
  }
  until-well $url {||
    try {
      let answer = (http get --full --allow-errors --raw --max-time 10sec $url)
      let text = (try { $answer.body | into string } catch { "" })
      if $answer.status != $status {
        $"it answers ($answer.status), not ($status)"
      } else if not ($text | str contains $contains) {
        $"its answer does not contain ($contains | to json)"
      } else {
        null
      }
    } catch {|failure| $failure.msg }
  } --within $within --every $every
}
