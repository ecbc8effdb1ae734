# Calls servers.delete. Generated: the request is on descriptor 3, the answer goes to descriptor 4.
module operation { export use ../tree/servers/delete.nu [delete-server] }
use operation

try {
  let request = open --raw /dev/fd/3 | from json
  # The children of the operation inherit the descriptor, and the params may hold secrets.
  try { "" | save --force --raw /dev/fd/3 }
  load-env $request.env
  $env.PATH = ($env.PATH | split row ":")
  let params = $request.params
  { result: (operation delete-server $params."name" --infra=$params."infra") } | to json --raw | save --force --raw /dev/fd/4
} catch {|failure|
  # each and par-each wrap an error: the innermost with a code of ours says what happened.
  mut level = [$failure.details]
  mut errors = []
  while ($level | is-not-empty) {
    $errors = $errors ++ $level
    $level = ($level | get --optional inner | compact | flatten)
  }
  let coded = $errors | where { ($in.code? | default "") starts-with "provisioning::" }
  let error = if ($coded | is-empty) { $errors | last } else { $coded | last }
  let label = if ($coded | is-empty) { $error.labels?.0?.text? | default "" } else { "" }
  let code = $error.code? | default "nu::shell::error"
  let msg = [$error.msg $label] | where { is-not-empty } | str join ": "
  let help = $error.help? | default ""
  { error: { code: $code, msg: $msg, help: $help } } | to json --raw | save --force --raw /dev/fd/4
  let exit_code = $failure.exit_code? | default 1
  exit (if $exit_code in 1..125 { $exit_code } else { 1 })
}
