# trial.reply

use ../lib/operation.nu *

# Answer with something else than a short text.
@operation {idempotent: true}
export def trial-reply [
  how: string@[long mismatch exit kill garbage] # What is wrong with the answer
]: nothing -> record<text: string> {
  match $how {
    "long" => { text: ("" | fill --width 2000000 --character "x") }
    "mismatch" => ('{"text": 1}' | from json)
    "exit" => (exit 0)
    "kill" => { ^sh -c 'kill -9 $PPID'; { text: "" } }
    "garbage" => { "{" | save --force --raw /dev/fd/4; exit 0 }
  }
}
