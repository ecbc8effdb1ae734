# Tests of lib/names.nu.

use std/assert
use ../lib/names.nu [check-name]

# The error code that checking a name raises, or null.
def refusal [
  name: string # The name to check
]: nothing -> any {
  try { check-name server $name } catch {|error| $error.details.code }
}

export def "test host name labels are names" [] {
  for name in [a "0" wuji web-1 a--b ("a" | fill --width 63 --character b)] {
    assert equal (refusal $name) null $name
  }
}

export def "test everything else is refused" [] {
  let too_long = ("a" | fill --width 64 --character b)
  for name in ["" "-a" "a-" A "a.b" ".." "." a/b "a b" "a\n" "a\u{0}" ä "$(id)" $too_long] {
    assert equal (refusal $name) "provisioning::servers::invalid-server" ($name | to json)
  }
}

export def "test an infra may be called what a manifest may call it" [] {
  for name in [a "0" my_site demo-1 a- ("a" | fill --width 64 --character b)] { check-name infra $name }
  for name in ["" "_a" A a.b .. a/b "a\n" ("a" | fill --width 65 --character b)] {
    let code = try { check-name infra $name; null } catch {|error| $error.details.code }
    assert equal $code "provisioning::servers::invalid-infra" ($name | to json)
  }
}

export def "test the error says what is named" [] {
  let code = try { check-name infra ".." } catch {|error| $error.details.code }
  assert equal $code "provisioning::servers::invalid-infra"
}
