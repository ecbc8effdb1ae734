# trial.large

use ../lib/operation.nu *

# Run a script of the test, then answer with a long text.
@operation {idempotent: false}
export def trial-large [
  script: string # For sh
  size: int # Characters of the text
]: nothing -> record<text: string> {
  ^sh -c $script
  { text: ("" | fill --width $size --character "x") }
}
