# Commands on machines that are reached by ssh.

use failure.nu [fail-for-now]
use infra.nu [path-of]

const script = (path self ssh.bash)

# Where and how to log in, from the settings of an infra.
#
# The host key must be known: settings name the file of known hosts, else it is
# `known_hosts` beside them.
export def ssh-target [
  settings: record # What `load-settings` returned
  machine: record # address, and what differs from [ssh]: port, user, key, known_hosts, sudo
]: nothing -> record<host: string, port: int, user: string, key: string, known_hosts: string, sudo: bool> {
  let all = ({ port: 22 user: "root" key: "" known_hosts: "known_hosts" } | merge ($settings.ssh? | default {}) | merge $machine)
  let key = if $all.key == "" { "" } else { path-of $settings $all.key }
  let known_hosts = (path-of $settings $all.known_hosts)
  for file in ([$key $known_hosts] | where {|path| $path != "" and not ($path | path exists) }) {
    error make {
      msg: $"there is no file ($file), which the settings of the infra name for ssh"
      code: "provisioning::ssh::invalid-settings"
      help: "known_hosts holds the host keys of the machines: collect them with ssh-keyscan, and compare them with what the machines show"
    }
  }
  # What begins with a dash would be an option of ssh.
  if ($all.address | str starts-with "-") or ($all.user | str starts-with "-") {
    error make {
      msg: $"no address or user can be ($all.address | to json) or ($all.user | to json)"
      code: "provisioning::ssh::invalid-settings"
      help: "write a host name or an address"
    }
  }
  {
    host: $all.address
    port: $all.port
    user: $all.user
    key: $key
    known_hosts: $known_hosts
    sudo: ($all.sudo? | default ($all.user != "root"))
  }
}

# What runs a command on the machine: see `enter` in providers/README.md.
export def ssh-entry [
  target: record # What `ssh-target` returned
  argv: list<string> # The program and its arguments
]: nothing -> record {
  let words = ($argv | each {|word| $"($word)\u{0}" } | str join)
  {
    argv: (ssh-words run $target)
    input: $"($argv | length)\u{0}($words)"
    transport: "ssh"
    explain: {|said| explain $target $said }
  }
}

# The argv of ssh.bash.
def ssh-words [
  verb: string # run, login or close
  target: record # What `ssh-target` returned
]: nothing -> list<string> {
  let sudo = if $target.sudo { "yes" } else { "no" }
  [bash $script $verb $target.host ($target.port | into string) $target.user $target.key $target.known_hosts $sudo]
}

# The argv with which a person logs in.
export def ssh-login [
  target: record # What `ssh-target` returned
]: nothing -> list<string> {
  ssh-words login $target
}

# End the shared connection: the machine is about to go away.
export def ssh-close [
  target: record # What `ssh-target` returned
]: nothing -> nothing {
  let words = (ssh-words close $target)
  do { ^$words.0 ...($words | skip 1) } | complete | ignore
}

# Raise what ssh's own failure means, if its words are known.
def explain [
  target: record # What `ssh-target` returned
  said: string # What ssh printed
]: nothing -> nothing {
  let where = $"($target.user)@($target.host):($target.port)"
  let last = ($said | str trim | lines | last 1 | str join)
  if $last =~ '\Aprogram missing: ' {
    error make {
      msg: $"ssh to ($where): ($last)"
      code: "provisioning::ssh::program-missing"
      help: "on Debian: apt install openssh-client util-linux coreutils; and look at environment.path in the config"
    }
  }
  if $said =~ 'HOST IDENTIFICATION HAS CHANGED|Host key verification failed|No \S+ host key is known' {
    error make {
      msg: $"the host key of ($target.host) is not the one in ($target.known_hosts), or not there"
      code: "provisioning::ssh::invalid-host-key"
      help: "find out why before you trust another key; then put it into that file"
    }
  }
  if $said =~ 'Permission denied|Too many authentication failures|sudo: a password is required' {
    error make {
      msg: $"($where) lets us not in: ($last)"
      code: "provisioning::ssh::invalid-login"
      help: "look at user and key in the infra's settings, and at sudo on the machine"
    }
  }
  if $said =~ '(?i)connection (refused|timed out|reset|closed)|no route to host|could not resolve|network is unreachable|timeout|kex_exchange|mux_client|broken pipe|host is down' {
    fail-for-now "provisioning::ssh::unreachable" $"($where) cannot be reached: ($last)" --retry-after 10sec --advice "see whether the machine runs, and its address"
  }
}
