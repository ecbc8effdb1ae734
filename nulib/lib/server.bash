# What taskservs do on a server, as its root. Sent by `bash -c`, values as words, contents on stdin.
set -euo pipefail
state=/var/lib/provisioning/taskservs

# Is the content of stdin what the file has? If not, put it there, whole or not at all.
put() {
  local path=$1 mode=$2 owner=$3
  mkdir -p -- "$(dirname -- "$path")"
  new=$(mktemp -- "$path.XXXXXX")
  trap 'rm -f -- "$new"' EXIT
  cat >"$new"
  chmod -- "$mode" "$new"
  chown -- "$owner" "$new"
  if cmp -s -- "$new" "$path" && [[ $(stat -c '%a %U:%G' -- "$new") == "$(stat -c '%a %U:%G' -- "$path")" ]]; then
    echo no
    return
  fi
  sync -- "$new" 2>/dev/null || :
  mv -fT -- "$new" "$path"
  echo yes
}

case $1 in
put) put "$2" "$3" "$4" ;;
digests)
  shift
  for path; do
    if [[ -f $path ]]; then sha256sum -- "$path" | cut -d' ' -f1; else echo none; fi
  done
  ;;
remove)
  shift
  for path; do
    if [[ -e $path || -L $path ]]; then
      rm -f -- "$path"
      echo yes
    fi
  done
  ;;
records) if [[ -d $state ]]; then find "$state" -name '*.json' -type f -exec cat {} +; fi ;;
record) put "$state/$2.json" 0644 root:root ;;
forget) rm -f -- "$state/$2.json" ;;
lacking)
  shift
  for program; do command -v -- "$program" >/dev/null || echo "$program"; done
  ;;
unpack)
  # Contents of an archive of packages and programs, carried along: checked, then installed.
  folder=$(mktemp -d)
  trap 'rm -rf -- "$folder"' EXIT
  base64 -d | tar -x -C "$folder"
  (cd -- "$folder" && sha256sum --quiet --strict -c SHA256SUMS)
  shopt -s nullglob
  packages=("$folder"/*.deb)
  if ((${#packages[@]})); then DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i "${packages[@]}" >&2; fi
  for archive in "$folder"/*.tar.gz "$folder"/*.tgz; do
    tar -xzf "$archive" -C "$folder"
  done
  for program in "${@:2}"; do
    found=$(find "$folder" -type f -name "$program" | head -n 1)
    if [[ -n $found ]] && ! command -v -- "$program" >/dev/null; then install -m 0755 -- "$found" "/usr/local/bin/$program"; fi
  done
  ;;
packages)
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -o DPkg::Lock::Timeout=120 update >&2
  apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold install --no-install-recommends "${@:2}" >&2
  ;;
users) read -r _ _ count </proc/self/uid_map && echo "$count" ;;
systemd) if [[ -d /run/systemd/system ]]; then echo yes; else echo no; fi ;;
*)
  echo "no such verb: $1" >&2
  exit 70
  ;;
esac
