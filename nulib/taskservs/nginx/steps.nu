# The steps of the taskserv nginx.

use ../../lib/steps.nu *

const commands = {
  running: [bash -c 'kill -0 "$(cat /run/nginx.pid)" 2>/dev/null']
  start: [nginx]
  reload: [nginx -s reload]
  stop: [nginx -s quit]
}

# Take the step that stdin asks for.
def main []: any -> nothing {
  collect | take-steps {
    install: {|it| apply $it }
    update: {|it| apply $it }
    remove: {|it| remove $it }
    check: {|it| check $it; false }
  }
}

# Install, or bring up to date.
def apply [
  it: record # What the step was given
]: nothing -> bool {
  let installed = (have-programs $it)
  on $it [install -d /var/log/nginx /var/lib/nginx /var/www/site] | ignore
  let changed = (put-files $it)
  on $it [nginx -t] | ignore
  let served = (have-running $it nginx $commands --reload=($changed | is-not-empty))
  check $it
  $installed or $served or ($changed | is-not-empty)
}

# Answers on its port.
def check [
  it: record # What the step was given
]: nothing -> nothing {
  wait-until $it [bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "GET / HTTP/1.0\r\n\r\n" >&3 && read -r line <&3 && [[ $line == HTTP/1.* ]]' ($it.data.port | into string)]
}

# Stop it and take its files away.
def remove [
  it: record # What the step was given
]: nothing -> bool {
  let stopped = (have-stopped $it nginx $commands)
  (remove-files $it) or $stopped
}
