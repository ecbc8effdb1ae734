# The settings of an infra, as its operator wrote them.

use names.nu [check-name]

# Load `settings.toml` of an infra; empty where the infra has none.
#
# The folders of $env.PROVISIONING_INFRA are asked in their order, and the first
# that has the infra counts. `folder` is added: where the settings are, which
# relative paths in them start from.
export def load-settings [
  infra: string # Name of the infra
]: nothing -> record {
  check-name infra $infra
  let places = (
    $env.PROVISIONING_INFRA?
    | default ""
    | split row ":"
    | where {|folder| $folder | str starts-with "/" }
    | each {|folder| $folder | path join $infra }
    | where {|folder| $folder | path join settings.toml | path exists }
  )
  if ($places | is-empty) { return {} }
  let path = ($places | first | path join settings.toml)
  let settings = try { open --raw $path | decode utf-8 | from toml } catch {
    error make {
      msg: $"the settings of infra ($infra) cannot be read: ($path)"
      code: "provisioning::infra::invalid-settings"
      help: $"see what is wrong with them: provisioning infra validate ($infra)"
    }
  }
  $settings | insert folder ($places | first)
}

# A path from settings, made absolute; `~` is not expanded.
export def path-of [
  settings: record # What `load-settings` returned
  path: string # The path as it is written there
]: nothing -> string {
  if ($path | str starts-with "/") { $path } else { $settings.folder | path join $path }
}
