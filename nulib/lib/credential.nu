# Secrets by name: settings say which, and a file that nobody else may read holds it.

use infra.nu [path-of]

# Read a secret, without the white space around it.
export def read-credential [
  settings: record # What `load-settings` returned
  name: string # Name of the credential
]: nothing -> string {
  open --raw (credential-file $settings $name) | decode utf-8 | str trim
}

# The file of a secret: that of its name in $CREDENTIALS_DIRECTORY, else in `credentials/` beside the settings.
export def credential-file [
  settings: record # What `load-settings` returned
  name: string # Name of the credential
]: nothing -> string {
  if $name !~ '\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z' {
    error make {
      msg: $"($name | to json) is no name of a credential"
      code: "provisioning::infra::invalid-credential"
      help: "write letters, digits, dots and dashes: the name of a file"
    }
  }
  let places = [($env.CREDENTIALS_DIRECTORY? | default "") (path-of $settings credentials)]
  let found = ($places | where {|folder| $folder != "" } | each {|folder| $folder | path join $name } | where {|file| $file | path exists })
  if ($found | is-empty) {
    error make {
      msg: $"there is no credential ($name)"
      code: "provisioning::infra::not-found"
      help: $"put it into ($places | last | path join $name), with mode 0400, or into $CREDENTIALS_DIRECTORY"
    }
  }
  let file = ($found | first)
  let mode = (ls --long --directory $file | get 0.mode)
  if ($mode | str substring 3..) != "------" {
    error make {
      msg: $"others may read the credential ($file): its mode is ($mode)"
      code: "provisioning::infra::invalid-credential"
      help: $"chmod 400 ($file)"
    }
  }
  $file
}
