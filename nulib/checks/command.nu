# checks.command

use ../lib/operation.nu *
use ../lib/polling.nu [until-well]
use ../lib/programs.nu [capture]

# Wait until a command on this host ends with exit code 0. It runs without a shell.
@operation {idempotent: true, timeout: 1hr}
export def check-command [
  argv: list<string> # The program and its arguments, passed on as they are
  --within: duration = 1min # So long at most
  --every: duration = 1sec # Between two looks
]: nothing -> record<looks: int, seconds: float> {
  until-well ($argv.0? | default "nothing") {||
    let ended = (capture $argv)
    if $ended.exit_code == 0 { null } else { $"exit code ($ended.exit_code)" }
  } --within $within --every $every
}
