# Providers by name, and what every server operation asks of them.

use ../providers/aws.nu [aws-provider]
use ../providers/local.nu [local-provider]
use ../providers/ssh.nu [ssh-provider]
use ../providers/upcloud.nu [upcloud-provider]
use infra.nu [load-settings]
use names.nu [check-name]
use programs.nu [capture]

# Load a provider by its name: the record of closures that providers/README.md describes.
export def load-provider [
  name: string # local or ssh
]: nothing -> record {
  match $name {
    "local" => { local-provider }
    "ssh" => { ssh-provider }
    "upcloud" => { upcloud-provider }
    "aws" => { aws-provider }
    _ => {
      error make {
        msg: $"there is no provider ($name | to json)"
        code: "provisioning::servers::invalid-provider"
        help: "write --provider local, ssh, upcloud or aws"
      }
    }
  }
}

# The providers that an infra uses: those that its settings have a section for, and always local.
export def providers-of [
  infra: string # Name of the infra
]: nothing -> list<string> {
  let settings = (load-settings $infra)
  let chosen = [
    local
    (if ($settings.inventory? | default {} | is-not-empty) { "ssh" })
    (if $settings.upcloud? != null { "upcloud" })
    (if $settings.aws? != null { "aws" })
    $settings.provider?
  ]
  $chosen | compact | uniq
}

# Create a server, or return the one that already has this name.
export def create-vm [
  spec: record # name, infra, provider, plan, zone, image, network, labels and ssh_keys
]: nothing -> record {
  check-name server $spec.name
  check-name infra $spec.infra
  let loaded = (load-provider $spec.provider)
  # A name is one server's, whatever provides it.
  for other in (providers-of $spec.infra | where {|each| $each != $spec.provider }) {
    if (do (load-provider $other).find $spec.infra $spec.name) != null {
      error make {
        msg: $"server ($spec.name) is there already, from provider ($other); ($spec.provider) was asked for"
        code: "provisioning::servers::invalid-provider"
        help: $"choose another name, or delete it: provisioning server delete ($spec.name) --infra ($spec.infra)"
      }
    }
  }
  # The provider looks first, and finishes what is half-made.
  let changed = (do $loaded.create $spec)
  let server = (do $loaded.find $spec.infra $spec.name)
  if $server == null {
    error make {
      msg: $"server ($spec.name) was made, and is not there any more"
      code: "provisioning::servers::vanished"
      help: "somebody else deletes it: see who works this infra"
    }
  }
  if $server.plan != $spec.plan {
    print --stderr $"server ($spec.name) is there already, with plan ($server.plan); ($spec.plan) was asked for"
  }
  $server | insert changed $changed
}

# Find a server by its name, whoever provides it; an error says it is not there.
export def find-server [
  name: string # Server name
  --infra: string # Namespace of the name
]: nothing -> record {
  let server = (look-up $name --infra $infra)
  if $server == null {
    error make {
      msg: $"there is no server ($name) in infra ($infra)"
      code: "provisioning::servers::not-found"
      help: ($"see those that are there: provisioning server list --infra ($infra); "
        + $"make it: provisioning server create ($name) --infra ($infra)")
    }
  }
  $server
}

# Find a server by its name; null if it is not there.
export def look-up [
  name: string # Server name
  --infra: string # Namespace of the name
]: nothing -> any {
  check-name server $name
  for provider in (providers-of $infra) {
    let server = (do (load-provider $provider).find $infra $name)
    if $server != null { return $server }
  }
  null
}

# Change the state of a server: `start`, `stop` or `restart`.
export def change-server [
  verb: string # The closure of the provider to call
  name: string # Server name
  --infra: string # Namespace of the name
]: nothing -> record {
  let provider = (load-provider (find-server $name --infra $infra).provider)
  let changed = (do ($provider | get $verb) $infra $name)
  find-server $name --infra $infra | insert changed $changed
}

# Run a command in a server, without a shell, and return how it ended.
#
# What it prints goes to the log; see `capture` for what is returned.
export def run-in-server [
  server: record # What `find-server` returned
  argv: list<string> # The program and its arguments, passed on as they are
  --input: string = "" # What the program reads on its stdin
  --quiet # What it prints does not go to the log
]: nothing -> record<exit_code: int, stdout: string, stderr: string, truncated: bool> {
  let entered = (do (load-provider $server.provider).enter $server.infra $server.name $argv)
  let ended = (capture $entered.argv --input $"($entered.input)($input)" --quiet=$quiet)
  # 255 is what ssh itself ends with where it finds no connection.
  if $ended.exit_code == 255 and ($entered.transport? | default "") == "ssh" {
    do $entered.explain $ended.stderr
  }
  $ended
}
