# Running an external program with bounded memory and a live log.

const script = (path self capture.bash)

# How many bytes of each of stdout and stderr a result keeps: the last ones.
export const kept_bytes = 65536

# Run a program without a shell and return how it ended.
#
# What it prints goes to stderr, which is the attempt's log, as it comes; the
# last 64 KiB of stdout and of stderr are returned too, bytes that are not
# UTF-8 replaced. Returns when the program has ended and nothing it started
# holds its stdout or stderr. 126 and 127 say that it could not be started, a
# number above 128 that signal number minus 128 ended it.
export def capture [
  argv: list<string> # The program and its arguments, passed on as they are
  --input: string = "" # What it reads on its stdin
  --quiet # What it prints does not go to the log
]: nothing -> record<exit_code: int, stdout: string, stderr: string, truncated: bool> {
  if ($argv | is-empty) or ($argv.0 | is-empty) {
    error make {
      msg: "there is no program to run: argv is empty"
      code: "provisioning::commands::invalid-argv"
      help: 'write it behind --, as in: provisioning command run -- ls -l; in a manifest argv: ["ls", "-l"]'
    }
  }
  if ($argv | any {|word| $word =~ '\x00' }) {
    error make {
      msg: "an argument contains a NUL character"
      code: "provisioning::commands::invalid-argument"
      help: "the kernel ends an argument at NUL: leave it out"
    }
  }
  # One byte more than is kept shows that something was cut off.
  let words = [($kept_bytes + 1 | into string) (if $quiet { "quiet" } else { "log" }) ...$argv]
  let answer = ($input | ^bash $script ...$words | collect | lines)
  let ends = ($answer | skip 1 | each {|line| $line | str substring 1.. | decode base64 })
  {
    exit_code: ($answer | first | into int)
    stdout: (last-bytes $ends.0)
    stderr: (last-bytes $ends.1)
    truncated: ($ends | any {|end| ($end | bytes length) > $kept_bytes })
  }
}

# The last bytes that a result keeps, as text.
def last-bytes [
  output: binary # What the program printed
]: nothing -> string {
  let cut = ([0 (($output | bytes length) - $kept_bytes)] | math max)
  $output | skip $cut | decode utf-8
}
