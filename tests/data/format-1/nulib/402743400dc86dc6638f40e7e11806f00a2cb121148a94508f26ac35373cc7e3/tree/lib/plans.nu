# The size of a server, as the operator writes it.

# Read a plan such as "2xCPU-4GB" into its numbers.
export def parse-plan [
  plan: string # CPUs and memory: `<count>xCPU-<count>GB`
]: nothing -> record<cpus: int, memory_gb: int> {
  let found = ($plan | parse --regex '\A(?P<cpus>[1-9][0-9]{0,3})xCPU-(?P<memory_gb>[1-9][0-9]{0,4})GB\z')
  if ($found | is-empty) {
    error make {
      msg: $"($plan | to json) is not a plan"
      code: "provisioning::servers::invalid-plan"
      help: 'write CPUs and memory, for instance --plan 1xCPU-1GB or --plan 2xCPU-4GB'
    }
  }
  $found | first | into int cpus memory_gb
}
