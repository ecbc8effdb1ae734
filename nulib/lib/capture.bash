# Runs a program, copies what it prints to stderr as it comes, and keeps the
# end of it. usage: capture.bash LIMIT log|quiet PROGRAM [ARGUMENT...]
#
# Answers three lines on stdout: exit code, end of stdout, end of stderr, the
# ends in base64 behind a colon and at most LIMIT bytes each. Memory and disk
# stay within that bound however much is printed; the two temporary files have
# no name while the program runs, so a kill leaves nothing. The program reads
# the stdin of this script. With `quiet` nothing is copied to stderr.
#
# It is bash because POSIX sh cannot allocate unused descriptors, and the
# numbers 5 to 9 may be the attempt's log, which the program has to inherit.
# Request and result of the attempt (3 and 4) are closed: they are not for it.
set -u
limit=$1 copy=$2
shift 2
exec 3<&- 4>&-
if [[ $copy == quiet ]]; then exec 2>/dev/null; fi
umask 077

kept=$(mktemp) || exit
exec {out_to}>"$kept" {out_from}<"$kept"
rm -f -- "$kept"
kept=$(mktemp) || exit
exec {err_to}>"$kept" {err_from}<"$kept"
rm -f -- "$kept"

keep() {
  # What runs here is no parent of the program, so a fixed descriptor is safe.
  { tee /dev/fd/9 >&2; } 9>&1 | tail -c "$limit"
}

exec {log}>&2
run() {
  exec {errors}>&1
  (exec -- "$@") 2>&"$errors" {errors}>&- {log}>&- {out_to}>&- {out_from}<&- {err_to}>&- {err_from}<&- \
    | keep 2>&"$log" >&"$out_to"
  exit "${PIPESTATUS[0]}"
}
(run "$@") | keep >&"$err_to"
printf '%s\n' "${PIPESTATUS[0]}"
printf ':' # so that no line is empty
base64 -w 0 <&"$out_from"
printf '\n:'
base64 -w 0 <&"$err_from"
echo
