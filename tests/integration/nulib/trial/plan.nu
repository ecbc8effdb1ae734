# trial.plan

use ../lib/operation.nu *

# Plan one echo for each name, each behind the one before it, and one for all of them.
@operation {plans: true}
export def trial-plan [
  names: list<string> # Whom to echo
  --fail # Fail
]: nothing -> list<any> {
  if $fail {
    error make {msg: "it was asked to", code: "provisioning::trial::refused", help: "do not ask"}
  }
  let each = ($names | enumerate | each {|it|
    {
      id: $it.item
      operation: "selftest.echo"
      params: {value: $"hello ($it.item)"}
      depends_on: (if $it.index > 0 { [($names | get ($it.index - 1))] })
    }
  })
  let all = {
    id: "all"
    operation: "selftest.echo"
    params: {value: ($names | each {|name| '${tasks.' + $name + '.result}'})}
    depends_on: $names
  }
  $each ++ (if ($names | is-empty) { [] } else { [$all] })
}
