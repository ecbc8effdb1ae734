# trial.pair

use ../lib/operation.nu *

# Have two things at once, for a moment.
@operation {idempotent: true, target: {exclusive: ["thing/{one}" "thing/{other}"]}}
export def trial-pair [
  one: string # A thing
  other: string # Another
]: nothing -> nothing {
  sleep 20ms
}
