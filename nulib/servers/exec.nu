# servers.exec

use ../lib/operation.nu *
use ../lib/provider.nu [find-server run-in-server]

# Run a command inside a running server, as its root, without a shell.
#
# What it prints goes to the log as it comes; the result holds the last 64 KiB
# each of stdout and stderr, and `truncated` says whether more was printed. An
# exit code other than 0 is the error provisioning::servers::exec-failed.
@operation {target: {shared: ["server/{name}"]}}
export def exec-server [
  name: string # Server name
  argv: list<string> # The program and its arguments, passed on as they are
  --infra: string = "default" # Namespace of server names
  --input: string = "" # What the program reads on its stdin
  --allow-failure # Return an exit code other than 0 in place of an error
]: nothing -> record<exit_code: int, stdout: string, stderr: string, truncated: bool> {
  let ended = (run-in-server (find-server $name --infra $infra) $argv --input $input)
  if $ended.exit_code != 0 and not $allow_failure {
    error make {
      msg: $"the command in server ($name) ended with exit code ($ended.exit_code)"
      code: "provisioning::servers::exec-failed"
      help: "the log has what it printed; --allow-failure returns the exit code"
    }
  }
  $ended
}
