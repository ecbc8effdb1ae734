# commands.run

use ../lib/programs.nu [capture]
use ../lib/operation.nu *

# Run one command on this host, without a shell.
#
# What it prints goes to the log as it comes; the result holds the last 64 KiB
# each of stdout and stderr, and `truncated` says whether more was printed. An
# exit code other than 0 is the error provisioning::commands::failed.
@operation {}
export def run-command [
  argv: list<string> # The program and its arguments, passed on as they are
  --cwd: string = "/" # Absolute path of the folder to run it in
  --environment: record = {} # Variables to set for it, names to strings
  --allow-failure # Return an exit code other than 0 in place of an error
]: nothing -> record<exit_code: int, stdout: string, stderr: string, truncated: bool> {
  if not ($cwd | str starts-with "/") or ($cwd | path type) not-in [dir symlink] {
    error make {
      msg: $"not a folder with an absolute path: ($cwd | to json)"
      code: "provisioning::commands::invalid-cwd"
      help: "give the absolute path of a folder that is there"
    }
  }
  for variable in ($environment | transpose name value) {
    if $variable.name !~ '\A[A-Za-z_][A-Za-z0-9_]*\z' or ($variable.value | describe) != string {
      error make {
        msg: $"not a variable with a text: ($variable.name | to json)"
        code: "provisioning::commands::invalid-environment"
        help: "names are letters, digits and _; values are strings"
      }
    }
  }
  if ($environment | is-not-empty) and ($argv.0? | default "" | str contains "=") {
    error make {
      msg: $"env takes this program for a variable: ($argv.0 | to json)"
      code: "provisioning::commands::invalid-argv"
      help: "give it another name, for example by a link, or leave environment out"
    }
  }
  # By env, so that the variables reach the program and nothing on the way to it.
  let set = ($environment | transpose name value | each {|variable| $"($variable.name)=($variable.value)" })
  let program = if ($set | is-empty) { $argv } else { ["env" "--" ...$set ...$argv] }
  let ended = do {
    cd $cwd
    capture $program
  }
  if $ended.exit_code != 0 and not $allow_failure {
    error make {
      msg: $"($argv.0 | to json) ended with exit code ($ended.exit_code)"
      code: "provisioning::commands::failed"
      help: ("the log has what it printed; 127 means that there is no such program; "
        + "--allow-failure returns the exit code")
    }
  }
  $ended
}
