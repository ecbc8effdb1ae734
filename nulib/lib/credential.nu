# Secrets by name: settings say which, and a file that nobody else may read holds it.
#
# Names, folder and conditions are those of `{ credential = "name" }` in a
# manifest: see "Secrets have names" in the README.

const min_bytes = 4
const max_bytes = 65536

# Read a secret, without the white space around it.
export def read-credential [
  name: string # Name of the credential
]: nothing -> string {
  open --raw (credential-file $name) | decode utf-8 | str trim
}

# The file of a secret, in the folder of credentials that the config names.
export def credential-file [
  name: string # Name of the credential
]: nothing -> string {
  if $name !~ '\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z' {
    error make {
      msg: $"($name | to json) is no name of a credential"
      code: "provisioning::credential::invalid"
      help: "write letters, digits, dots and dashes: the name of a file"
    }
  }
  let folder = ($env.PROVISIONING_CREDENTIALS? | default "")
  let file = ($folder | path join $name)
  if not ($file | path exists) {
    error make {
      msg: $"there is no credential ($name) in ($folder)"
      code: "provisioning::credential::not-found"
      help: $"make it a file of its owner alone: \(umask 077; cat >($file)\)"
    }
  }
  let found = (do { ^stat --format "%f %u %g %s" -- $file } | complete)
  if $found.exit_code != 0 {
    error make {
      msg: $"cannot look at the credential ($name): ($found.stderr | str trim)"
      code: "provisioning::credential::unreadable"
      help: "it needs the program stat, and the right to enter its folder"
    }
  }
  check-file $name $file ($found.stdout | str trim | split row " ")
  $file
}

# Refuse a file that others could read or change, and what is none.
def check-file [
  name: string # Name of the credential
  file: string # Where it is
  facts: list<string> # Its kind and mode in hexadecimal digits, its owner, its group, its bytes
]: nothing -> nothing {
  let mode = ($facts.0 | into int --radix 16)
  if ($mode | bits and 0xf000) != 0x8000 {
    error make {
      msg: $"the credential ($name) is no regular file: ($file)"
      code: "provisioning::credential::unreadable"
      help: "put the file itself there, and no link"
    }
  }
  let own = (open --raw /proc/self/status | lines | parse --regex '\AUid:\s+\d+\s+(?P<uid>\d+)' | get 0.uid)
  # The group of root may read what is root's: so it looks where systemd grants one user the right by an ACL.
  let others = if $facts.1 == "0" and $facts.2 == "0" { 0x1f } else { 0x3f }
  if $facts.1 not-in ["0" $own] or ($mode | bits and $others) != 0 {
    error make {
      msg: $"the credential ($name) can be read or changed by others: ($file)"
      code: "provisioning::credential::unsafe"
      help: $"chown it to the user who works the spool, and: chmod 400 ($file)"
    }
  }
  if ($facts.3 | into int) not-in $min_bytes..$max_bytes {
    error make {
      msg: $"the credential ($name) must have ($min_bytes) to ($max_bytes) bytes"
      code: "provisioning::credential::invalid"
      help: $"look at ($file)"
    }
  }
}
