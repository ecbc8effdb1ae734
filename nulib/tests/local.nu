# Tests of where providers/local.nu keeps its servers.

use std/assert
use ../providers/local.nu [servers-dir]

export def "test PROVISIONING_SERVERS comes first" [] {
  with-env { PROVISIONING_SERVERS: /s XDG_STATE_HOME: /x } {
    assert equal (servers-dir) /s
  }
}

export def "test a relative folder is refused" [] {
  let code = try {
    with-env { PROVISIONING_SERVERS: servers } { servers-dir }
  } catch {|error| $error.details.code }
  assert equal $code "provisioning::local::invalid-state-folder"
}
