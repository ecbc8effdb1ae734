# selftest.fail

use ../lib/operation.nu *

# Fail with a chosen error, or end the process with a chosen exit code.
@operation {idempotent: true, timeout: 1min}
export def selftest-fail [
  --code: string = "provisioning::selftest::failed" # Error code: provisioning::<domain>::<case>
  --message: string = "this task was asked to fail" # Error message
  --exit: int = 0 # End the process with this exit code, 1 to 255, without an error; 0 raises the error
]: nothing -> nothing {
  if $exit != 0 {
    if $exit not-in 1..255 {
      error make {
        msg: $"($exit) is not an exit code"
        code: "provisioning::selftest::invalid-exit"
        help: "give a number from 1 to 255, or 0 for an error"
      }
    }
    print --stderr $message
    exit $exit
  }
  if $code !~ '\Aprovisioning::[a-z0-9-]+::[a-z0-9-]+\z' {
    error make {
      msg: $"($code | to json) is not an error code"
      code: "provisioning::selftest::invalid-code"
      help: "write provisioning::<domain>::<case>"
    }
  }
  if true {
    error make {
      msg: $message
      code: $code
      help: "nothing is wrong: selftest.fail always fails"
    }
  }
}
