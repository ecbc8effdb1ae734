# What a name may be, checked before it becomes a path or a host name.

const host_name_label = {
  pattern: '\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z'
  help: "use 1 to 63 lower-case letters, digits and dashes, with a letter or a digit at both ends, for instance web-1"
}
const infra_name = {
  pattern: '\A[a-z0-9][a-z0-9_-]{0,63}\z'
  help: "use 1 to 64 lower-case letters, digits, dashes and underscores, with a letter or a digit first, for instance site_1"
}

# Refuse what is no name: an infra's is what a manifest may call one, any other is a host name label.
export def check-name [
  kind: string # What is named, as the error says it: `server`, `infra`, `taskserv`, …
  name: string # The name to check
]: nothing -> nothing {
  let form = if $kind == "infra" { $infra_name } else { $host_name_label }
  if $name !~ $form.pattern {
    error make {
      msg: $"($name | to json) is not a valid ($kind) name"
      code: $"provisioning::servers::invalid-($kind)"
      help: $form.help
    }
  }
}
