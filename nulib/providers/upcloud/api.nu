# Calls of UpCloud's API 1.3, and what its answers mean.

use ../../lib/credential.nu [read-credential]
use ../../lib/failure.nu [fail-for-now]
use ../../lib/infra.nu [load-settings]

# What every call needs: the infra's settings, the address of the API and the token.
export def connect [
  infra: string # Name of the infra
]: nothing -> record {
  let settings = (load-settings $infra)
  if $settings.upcloud? == null {
    error make {
      msg: $"infra ($infra) has no section [upcloud] in its settings"
      code: "provisioning::upcloud::invalid-settings"
      help: 'write one with zone, template and credential; see nulib/providers/README.md'
    }
  }
  let own = (
    {
      url: "https://api.upcloud.com"
      credential: "upcloud-token"
      timeout_seconds: 60
      poll_seconds: 2
      wait_seconds: 600
    } | merge $settings.upcloud
  )
  $own | insert infra $infra | insert settings $settings | insert token (read-credential $own.credential)
}

# One call of the API: its status and body. What failed is an error with a code.
export def call [
  api: record # What `connect` returned
  method: string # GET, POST or DELETE
  path: string # Below /1.3
  body?: record # What is sent
  --may-miss # Return null where there is no such thing
]: nothing -> any {
  let url = $"($api.url)/1.3($path)"
  let headers = { Authorization: $"Bearer ($api.token)" Accept: "application/json" }
  let limit = ($api.timeout_seconds * 1sec)
  let answer = try {
    match $method {
      "GET" => (
        http get --full --allow-errors --raw --redirect-mode manual --max-time $limit --headers $headers $url
      )
      "DELETE" => (
        http delete --full --allow-errors --raw --redirect-mode manual --max-time $limit --headers $headers $url
      )
      _ => (
        http post --full --allow-errors --raw --redirect-mode manual --max-time $limit --headers $headers
          --content-type application/json $url ($body | default {})
      )
    }
  } catch {|caught| $caught.details.msg }
  # A connection that ends before its answer is a text too, from some of the calls.
  if ($answer | describe) not-starts-with record {
    let help = "see whether the network, the proxy and the CA are right; what was asked for may have happened"
    fail-for-now "provisioning::upcloud::unreachable" $"($method) ($path): no answer from ($api.url): ($answer)" --retry-after 10sec --advice $help
  }
  if $answer.status in 200..299 { return (parsed $answer.body) }
  if $may_miss and $answer.status == 404 { return null }
  explain $method $path $answer
}

# The JSON of a body; an empty one is an empty record.
export def parsed [
  body: any # What was answered
]: nothing -> any {
  let text = if ($body | describe) == binary { $body | decode utf-8 } else { $body | default "" }
  if ($text | str trim) == "" { return {} }
  try { $text | from json } catch {
    error make {
      msg: "what answers is not UpCloud's API: its body is not JSON"
      code: "provisioning::upcloud::invalid-settings"
      help: "look at url in [upcloud] of the infra's settings, and at the proxy"
    }
  }
}

# Raise what an answer means that is no success.
#
# There are two forms: {error: {error_code, error_message}} and {type, title, invalid_params}.
export def explain [
  method: string # GET, POST or DELETE
  path: string # Below /1.3
  answer: record # What was answered
]: nothing -> any {
  let body = try { parsed $answer.body } catch { {} }
  let body = if ($body | describe) starts-with record { $body } else { {} }
  let case = ($body.error?.error_code? | default ($body.type? | default "" | split row "#" | last | str replace ERROR_ ""))
  let said = ($body.error?.error_message? | default ($body.title? | default ""))
  let fields = ($body.invalid_params? | default [] | each {|one| $"($one.name): ($one.reason)" } | str join "; ")
  let text = ([$said $fields] | where {|part| $part != "" } | str join ": ")
  let msg = $"($method) ($path): ($answer.status) ($case) ($text)"
  let asked = (
    $answer.headers.response
    | where {|header| ($header.name | str lowercase) == "retry-after" and $header.value =~ '\A\d{1,5}\z' }
    | get --optional 0.value
  )
  let after = ($asked | default "10" | into int) * 1sec
  match $answer.status {
    401 | 403 => {
      error make {
        msg: $msg
        code: "provisioning::upcloud::invalid-credential"
        help: "look at credential in [upcloud], and at the rights of that token"
      }
    }
    404 => { error make { msg: $msg code: "provisioning::upcloud::not-found" help: "it is gone" } }
    409 => { fail-for-now "provisioning::upcloud::busy" $msg --retry-after (if $asked == null { 5sec } else { $after }) }
    429 => { fail-for-now "provisioning::upcloud::limited" $msg --retry-after $after }
    $status if $status >= 500 => { fail-for-now "provisioning::upcloud::unavailable" $msg --retry-after $after }
    _ => {
      error make {
        msg: $msg
        code: "provisioning::upcloud::invalid-request"
        help: "look at plan, zone, image and the settings: provisioning server plans, provisioning server zones"
      }
    }
  }
  null
}
