# Calls of EC2 by the `aws` command, and what it says when they fail.

use ../../lib/credential.nu [credential-file]
use ../../lib/failure.nu [fail-for-now]
use ../../lib/infra.nu [load-settings]

# What every call needs: the infra's settings, and the environment of `aws`.
export def connect [
  infra: string # Name of the infra
]: nothing -> record {
  let settings = (load-settings $infra)
  if $settings.aws?.region? == null {
    error make {
      msg: $"infra ($infra) has no region in [aws] of its settings"
      code: "provisioning::aws::invalid-settings"
      help: 'write [aws] with region, image and credential; see nulib/providers/README.md'
    }
  }
  if (which aws | where type == external | is-empty) {
    error make {
      msg: "the program aws is missing"
      code: "provisioning::aws::invalid-settings"
      help: "install it (Debian: apt install awscli), and look at environment.path in the config"
    }
  }
  let own = ({ endpoint: "" credential: "" poll_seconds: 2 wait_seconds: 600 } | merge $settings.aws)
  # Nothing of this host's own configuration of aws counts.
  let environment = {
    AWS_CONFIG_FILE: "/dev/null"
    AWS_SHARED_CREDENTIALS_FILE: (if $own.credential == "" { "/dev/null" } else { credential-file $own.credential })
    AWS_EC2_METADATA_DISABLED: (if $own.credential == "" { "false" } else { "true" })
    AWS_PAGER: ""
    AWS_RETRY_MODE: "standard"
    AWS_MAX_ATTEMPTS: "3"
  }
  $own | merge { infra: $infra settings: $settings environment: $environment }
}

# One call of EC2; its params and its answer are JSON. No secret is among the params.
export def call [
  api: record # What `connect` returned
  action: string # Such as describe-instances
  params: record # As the API names them
]: nothing -> any {
  let words = (
    [--output json --region $api.region --cli-connect-timeout "10" --cli-read-timeout "60"]
    | append (if $api.endpoint == "" { [] } else { [--endpoint-url $api.endpoint] })
    | append [ec2 $action --cli-input-json ($params | to json --raw)]
  )
  let ended = with-env $api.environment { do { ^aws ...$words } | complete }
  if $ended.exit_code != 0 { explain $action $ended.stderr }
  if ($ended.stdout | str trim) == "" { {} } else { $ended.stdout | from json }
}

# Raise what `aws` said.
export def explain [
  action: string # What was called
  said: string # Its stderr
]: nothing -> nothing {
  let said = ($said | str trim)
  let case = ($said | parse --regex 'An error occurred \((?P<code>[^)]+)\)' | get --optional 0.code | default "")
  let msg = $"($action): ($said)"
  if $case in [RequestLimitExceeded Throttling ThrottlingException EC2ThrottledException] {
    fail-for-now "provisioning::aws::limited" $msg --retry-after 10sec
  }
  if $case in [InsufficientInstanceCapacity InsufficientHostCapacity] {
    fail-for-now "provisioning::aws::unavailable" $msg --retry-after 1min
  }
  if $case in [Unavailable InternalError InternalFailure ServiceUnavailable RequestExpired] or $case =~ '\A5\d\d\z' {
    fail-for-now "provisioning::aws::unavailable" $msg --retry-after 10sec
  }
  if $case in [IncorrectInstanceState IncorrectState] {
    fail-for-now "provisioning::aws::busy" $msg --retry-after 5sec
  }
  if $case == "" and $said =~ '(?i)could not connect|timed? ?out|connection was closed|connection reset|connection aborted' {
    fail-for-now "provisioning::aws::unreachable" $msg --retry-after 10sec --advice "see whether the network, the proxy and the CA are right"
  }
  if $case in [AuthFailure UnauthorizedOperation InvalidClientTokenId SignatureDoesNotMatch ExpiredToken OptInRequired] or $said =~ 'Unable to locate credentials|Partial credentials' {
    error make { msg: $msg code: "provisioning::aws::invalid-credential" help: "look at credential in [aws]: the name of a file as aws itself has it" }
  }
  if $case == "InvalidInstanceID.NotFound" {
    error make { msg: $msg code: "provisioning::aws::not-found" help: "it is gone" }
  }
  error make {
    msg: $msg
    code: "provisioning::aws::invalid-request"
    help: "look at plan, zone, image and [aws] of the infra's settings"
  }
  null
}
