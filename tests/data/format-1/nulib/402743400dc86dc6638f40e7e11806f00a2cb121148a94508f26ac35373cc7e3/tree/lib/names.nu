# What a name may be, checked before it becomes a path or a host name.

# Refuse a name that is not a host name label.
#
# A label has 1 to 63 characters: lower-case letters, digits and dashes, with
# a letter or a digit at both ends.
export def check-name [
  kind: string # What is named, as the error says it: `server` or `infra`
  name: string # The name to check
]: nothing -> nothing {
  if $name !~ '\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z' {
    error make {
      msg: $"($name | to json) is not a valid ($kind) name"
      code: $"provisioning::servers::invalid-($kind)"
      help: ("use 1 to 63 lower-case letters, digits and dashes, "
        + "with a letter or a digit at both ends, for instance web-1")
    }
  }
}
