# trial.surroundings

use ../lib/operation.nu *

# Tell what a Nushell process and a child of it find around them.
@operation {idempotent: true}
export def trial-surroundings []: nothing -> any {
  {
    environ: (open --raw /proc/self/environ | decode utf-8 | split row (char nul) | where { is-not-empty })
    child_environ: (^cat /proc/self/environ | split row (char nul) | where { is-not-empty })
    own: (^sh -c 'cd /proc/$PPID/fd; for n in *; do echo "$n $(readlink $n)"; done' | lines)
    child: (^sh -c 'cd /proc/$$/fd; for n in *; do echo "$n $(readlink $n)"; done' | lines)
    pid: $nu.pid
    stat: (open --raw /proc/self/stat)
    status: (open --raw /proc/self/status)
    limits: (open --raw /proc/self/limits)
    cwd: (^readlink /proc/self/cwd)
  }
}
