# Calls of the HTTP door of an installation: `provisioning serve`.

const door = "http://localhost:9090"

# Submit one operation, and return the workflow_id at once.
#
# Without a `name` in the params, where the operation takes one, the infra's name
# is meant as the name. With a key, the same call is the same workflow, however
# often it is made.
export def submit-operation [
  operation: string # Name of the operation: `servers.create`
  params: record = {} # Its params
  --infra: string = "" # Where it is done
  --key: string = "" # A name for this very call: letters, digits, `.`, `_` and `-`
  --url: string = $door # Where the door is
  --socket: string = "" # Path of the door's unix socket; the url then only says which host is meant
  --token: string = "" # Says who calls, where the kernel cannot
]: nothing -> string {
  if $operation !~ '\A[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\z' {
    error make {
      msg: $"($operation | to json) is no name of an operation"
      code: "provisioning::client::invalid-operation"
      help: "write domain.verb: servers.create"
    }
  }
  let body = (if $infra == "" { { params: $params } } else { { infra: $infra params: $params } })
  let headers = (
    { Authorization: (if $token == "" { null } else { $"Bearer ($token)" })
      Idempotency-Key: (if $key == "" { null } else { $key }) }
    | compact-record
  )
  let address = $"($url)/workflows/($operation | str replace '.' '/')"
  let text = ($body | to json --raw)
  let answer = (
    if $socket == "" {
      http post --full --allow-errors --raw --max-time 1min --content-type application/json --headers $headers $address $text
    } else {
      (http post --unix-socket $socket --full --allow-errors --raw --max-time 1min
        --content-type application/json --headers $headers $address $text)
    }
  )
  ($answer | said).workflow_id
}

# What there is to say of a workflow: its state, its tasks and their results.
export def show-workflow [
  workflow_id: string # As submit-operation returned it
  --url: string = $door # Where the door is
  --socket: string = "" # Path of the door's unix socket
  --token: string = "" # Says who calls, where the kernel cannot
]: nothing -> record {
  if $workflow_id !~ '\A[0-9a-z]{1,26}\z' {
    error make {
      msg: $"($workflow_id | to json) is no workflow_id"
      code: "provisioning::client::invalid-id"
      help: "it has 26 letters and digits"
    }
  }
  let headers = (if $token == "" { {} } else { { Authorization: $"Bearer ($token)" } })
  let address = $"($url)/workflows/($workflow_id)"
  let answer = (
    if $socket == "" {
      http get --full --allow-errors --raw --max-time 1min --headers $headers $address
    } else {
      http get --unix-socket $socket --full --allow-errors --raw --max-time 1min --headers $headers $address
    }
  )
  $answer | said
}

# The data of an answer; an error where it says one.
def said []: record -> any {
  let answer = $in
  let page = (try { $answer.body | from json } catch { {} })
  if ($page.success? | default false) { return $page.data }
  error make {
    msg: ($page.error?.message? | default $"the door answers ($answer.status)")
    code: $"provisioning::gateway::($page.error?.code? | default 'no-answer')"
    help: ($page.error?.hint? | default "is that the address of a provisioning serve?")
  }
}

# The record without what is null.
def compact-record []: record -> record {
  items {|name, value| { name: $name value: $value } } | where value != null | reduce --fold {} {|each, all|
    $all | insert $each.name $each.value
  }
}
