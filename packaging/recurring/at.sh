#!/bin/sh
# Once, and later. Usage: at.sh FILE TIME, such as: at.sh site.toml 02:00
# at runs what it reads then, in this folder and environment, and mails what it says: only what went wrong.
set -eu
MANIFEST=$(realpath -- "$1")
export MANIFEST
at "$2" <<'JOB'
provisioning batch submit -q "$MANIFEST" >/dev/null && provisioning orchestrator run --until-empty --max-wait 3600
JOB
# Where an orchestrator runs anyway, none of this is needed: provisioning batch submit FILE --at 02:00
