# selftest.mark

use ../lib/operation.nu *

# Append one line to a file: what runs twice leaves two lines.
#
# The line is written at once at the end of the file, so that lines of tasks
# that run at the same time never mix. The file is made if it is not there.
@operation {idempotent: false, timeout: 1min}
export def selftest-mark [
  file: string # Absolute path of the file; its folder has to be there
  line: string # The line, without a line break, at most 4000 bytes
]: nothing -> nothing {
  if not ($file | str starts-with "/") {
    error make {
      msg: $"not an absolute path: ($file | to json)"
      code: "provisioning::selftest::invalid-file"
      help: "give a path that starts with /"
    }
  }
  if $line =~ '[\r\n]' or ($line | str length) > 4000 {
    error make {
      msg: "that is not one line of at most 4000 bytes"
      code: "provisioning::selftest::invalid-line"
      help: "leave out line breaks, or make several marks"
    }
  }
  # Not `save --append`: it truncates a file that another task makes meanwhile.
  let ended = (do { $"($line)\n" | ^tee --append -- $file } | complete)
  if $ended.exit_code != 0 {
    error make {
      msg: $"cannot append to ($file): ($ended.stderr | str trim)"
      code: "provisioning::selftest::cannot-append"
      help: "see that the folder is there and that this user may write in it"
    }
  }
}
