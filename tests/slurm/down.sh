#!/bin/sh
# down.sh - cancels the jobs, then ends by pid exactly the daemons up.sh started.
B=${SU_HOME:-${TMPDIR:-/tmp}/vpgea-slurm}; export SLURM_CONF="$B/slurm.conf"
# a dead daemon stays a zombie until PID 1 reaps it, which can be slow: do not wait for that
alive() { case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in ''|Z*) return 1;; esac; }
stop() { # pidfiles: TERM them all, wait up to 10 s, KILL what is left
  ps=; for f; do p=$(cat "$f" 2>/dev/null) && [ -n "$p" ] && alive "$p" && kill "$p" && ps="$ps $p"; done
  for p in $ps; do
    n=0; while alive "$p" && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
    if alive "$p"; then echo "down.sh: pid $p did not end, KILL" >&2; kill -9 "$p"; fi
  done; }
if alive "$(cat "$B/slurmctld.pid" 2>/dev/null)"; then
  j=$(timeout 10 squeue -h -o %A | sort -u); [ -z "$j" ] || timeout 10 scancel $j
  n=0; while [ $n -lt 150 ] && [ -n "$(timeout 10 squeue -h)" ]; do sleep 0.1; n=$((n+1)); done
fi
stop "$B"/slurmd.*.pid; stop "$B/slurmctld.pid"; stop "$B/munged.pid"
