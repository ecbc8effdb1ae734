# What the ssh provider asks of a machine, as its root. Sent by `bash -c`.
# usage: show | adopt RECORD | forget | facts | boot
# The record of the adoption is on the machine itself: who adopted it is known
# wherever it is asked from.
set -eu
record=/var/lib/provisioning/server.json
case $1 in
show)
  if [[ -e $record ]]; then cat -- "$record"; else echo '{}'; fi
  ;;
adopt)
  mkdir -p -- "${record%/*}"
  printf '%s\n' "$2" >"$record.new"
  sync -- "$record.new" 2>/dev/null || :
  mv -fT -- "$record.new" "$record"
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
