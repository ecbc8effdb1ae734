# Tests of lib/plans.nu.

use std/assert
use ../lib/plans.nu [parse-plan]

export def "test a plan is two numbers" [] {
  assert equal (parse-plan "1xCPU-1GB") { cpus: 1 memory_gb: 1 }
  assert equal (parse-plan "16xCPU-128GB") { cpus: 16 memory_gb: 128 }
}

export def "test everything else is refused" [] {
  for plan in ["" "1xCPU" "0xCPU-1GB" "1xCPU-0GB" "1xcpu-1gb" "1xCPU-1GB\n" "-1xCPU-1GB" "1.5xCPU-1GB" "99999xCPU-1GB"] {
    let code = try { parse-plan $plan; null } catch {|error| $error.details.code }
    assert equal $code "provisioning::servers::invalid-plan" ($plan | to json)
  }
}
