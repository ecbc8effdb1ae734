# trial.secret

use ../lib/operation.nu *

# Do with a secret what no operation should: say it in every way.
@operation {idempotent: true, secret: [token]}
export def trial-secret [
  token: string # The secret
  --how: string@[say piecemeal encoded look return fail] = "say" # What to do with it
]: nothing -> record<text: string> {
  match $how {
    "say" => { print $token; print --stderr $"before($token)after" }
    "piecemeal" => {
      for letter in ($token | split chars) { ^printf %s $letter }
      print ""
    }
    "encoded" => {
      print ($token | encode base64)
      print ($"user:($token)" | encode base64)
      print ($"ab($token)" | encode base64)
      print ({ token: $token } | to json)
      print ($token | encode hex)
    }
    "look" => {
      for file in [/proc/self/cmdline /proc/self/environ] { print (open --raw $file | decode utf-8) }
      ^cat /proc/self/environ
    }
    "fail" => { error make { code: "provisioning::trial::failed", msg: $"it was ($token)", help: $"not ($token)" } }
    _ => {}
  }
  { text: (if $how == "return" { $"it is ($token)" } else { "" }) }
}
