# What the ssh provider asks of a machine, as its root. Sent by `bash -c`.
# usage: show | adopt RECORD | forget | facts | boot
# The record of the adoption is on the machine itself: who adopted it is known
# wherever it is asked from.
set -eu
record=/var/lib/provisioning/server.json
case $1 in
show)
  cat -- "$record" 2>/dev/null || { [[ ! -e $record ]] && echo '{}'; }
  ;;
adopt)
  # A link is made for the first of several that ask at once, and for no other.
  mkdir -p -- "${record%/*}"
  new=$(mktemp -- "$record.XXXXXX")
  trap 'rm -f -- "$new"' EXIT
  chmod 644 -- "$new"
  printf '%s\n' "$2" >"$new"
  sync -- "$new" 2>/dev/null || :
  if ln -T -- "$new" "$record" 2>/dev/null; then echo yes; elif [[ -e $record ]]; then echo no; else ln -T -- "$new" "$record"; fi
  ;;
forget)
  if [[ -e $record ]]; then
    rm -f -- "$record"
    echo yes
  else
    echo no
  fi
  ;;
facts)
  read -r _ memory _ </proc/meminfo
  name=
  if [[ -e /etc/os-release ]]; then name=$(. /etc/os-release && printf %s "$ID $VERSION_ID"); fi
  printf '%s\n' "$(nproc)" "$memory" "$(uname -r)" "$(uname -m)" "$name" \
    "$(cat /etc/machine-id 2>/dev/null)" "$(cat /proc/sys/kernel/random/boot_id)"
  ;;
boot) cat /proc/sys/kernel/random/boot_id ;;
esac
