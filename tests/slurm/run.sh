#!/bin/sh
# run.sh COMMAND...: runs a command with a real SLURM of four virtual nodes beside it, and ends that afterwards.
HERE=$(cd "$(dirname "$0")" && pwd)
if [ "$(id -u)" != 0 ]; then
  echo "NOT RUN: the tests with the real SLURM need root, to start one: $*" >&2
  exit 0
fi
if ! command -v slurmctld >/dev/null && ! command -v apt-get >/dev/null; then
  echo "NOT RUN: there is no SLURM here, and no apt-get to install one: $*" >&2
  exit 0
fi
sh "$HERE/up.sh" || exit 1
. "${SU_HOME:-${TMPDIR:-/tmp}/vpgea-slurm}/env.sh"
"$@"
CODE=$?
sh "$HERE/down.sh"
exit $CODE
