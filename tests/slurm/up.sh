#!/bin/sh
# up.sh - a real SLURM on loopback: munged + slurmctld + N slurmd (virtual nodes n0..),
# fake GPUs, no systemd, no cgroup, nothing outside $B but the Debian packages.
# Debian 12, as root.   use: ./up.sh && . ${TMPDIR:-/tmp}/vpgea-slurm/env.sh      end: ./down.sh
# Settings are SU_*, never SLURM_*: sbatch/srun would read those as their own options.
set -eu
B=${SU_HOME:-${TMPDIR:-/tmp}/vpgea-slurm}            # all state; wiped at start
N=${SU_NODES:-4}                        # virtual nodes, one slurmd each
CPUS=${SU_CPUS:-8}                      # pretended cores of each node
GPUS=${SU_GPUS:-4}                      # pretended GPUs of each node (0: none)
PORT=${SU_PORT:-17817}                  # slurmctld; slurmd i at PORT+1+i
export DEBIAN_FRONTEND=noninteractive
HERE=$(cd "$(dirname "$0")" && pwd)
T0=$(date +%s.%N)
say() { printf '%6.2fs %s\n' "$(echo "$(date +%s.%N) $T0" | awk '{print $1-$2}')" "$*"; }
die() { # say why, end what already runs
  echo "up.sh: failed at: $*" >&2; tail -n 8 "$B"/*.log >&2 2>/dev/null || :
  SU_HOME=$B "$HERE/down.sh"; exit 1; }
until_ok() { t=0; until "$@" >/dev/null 2>&1; do t=$((t+1)); [ $t -lt 600 ] || die "never ok: $*"; sleep 0.05; done; }
[ "$(id -u)" = 0 ] || { echo "up.sh: needs root" >&2; exit 1; }
cd /

# 1. packages -----------------------------------------------------------------------------------
pk=; need() { command -v "$1" >/dev/null || pk="$pk $2"; }
need munged munge; need slurmctld slurmctld; need slurmd slurmd; need sbatch slurm-client
if [ -n "$pk" ]; then
  mkdir -p "$(dirname "$B")"
  # keep the packages from starting daemons of their own on a machine that has an init
  P=/usr/sbin/policy-rc.d; mine=
  [ -e $P ] || { printf '#!/bin/sh\nexit 101\n' >$P; chmod 755 $P; mine=1; }
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends $pk; } >"$B.apt.log" 2>&1 || {
    [ -z "$mine" ] || rm -f $P; cat "$B.apt.log" >&2; exit 1; }
  [ -z "$mine" ] || rm -f $P
fi
say "packages: $(slurmd -V)"

# 2. files ----------------------------------------------------------------------------------------
if [ -s "$B/slurmctld.pid" ] && grep -q slurmctld "/proc/$(cat "$B/slurmctld.pid")/cmdline" 2>/dev/null; then
  echo "up.sh: already up, pid $(cat "$B/slurmctld.pid"); run down.sh first" >&2; exit 1
fi
rm -rf "$B"; mkdir -p "$B/state" "$B/dev"; chmod 755 "$B"
L=$((N-1)); S="$B/munge.socket"
dd if=/dev/urandom of="$B/munge.key" bs=1024 count=1 2>/dev/null; chmod 400 "$B/munge.key"
# the gpu plugin wants device nodes; null devices will do
i=0; while [ $i -lt "$GPUS" ]; do mknod -m 666 "$B/dev/gpu$i" c 1 3 || ln -s /dev/null "$B/dev/gpu$i"; i=$((i+1)); done
cat >"$B/slurm.conf" <<EOF
ClusterName=ci
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job must wait before it may start again (default 120 s)
AuthInfo=socket=$S,cred_expire=${SU_REQUEUE_WAIT:-5}
StateSaveLocation=$B/state
SlurmdSpoolDir=$B/spool.%n
SlurmctldPidFile=$B/slurmctld.pid
SlurmdPidFile=$B/slurmd.%n.pid
SlurmctldLogFile=$B/slurmctld.log
SlurmdLogFile=$B/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# 1: a preempted job first gets its own --signal (a site option, off by default)
$([ "${SU_PREEMPT_SIGNAL:-0}" = 0 ] || echo SlurmctldParameters=preempt_send_user_signal)
JobRequeue=1
KillWait=${SU_KILLWAIT:-3}
MinJobAge=${SU_MINJOBAGE:-3600}
ReturnToService=2
# bind 127.0.0.1 only, not every interface
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# believe the sizes below, not the hardware
SlurmdParameters=config_overrides
$([ "$GPUS" = 0 ] || echo GresTypes=gpu)
NodeName=n[0-$L] NodeAddr=127.0.0.1 Port=$((PORT+1))-$((PORT+N)) CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=16000 $([ "$GPUS" = 0 ] || echo Gres=gpu:$GPUS)
PartitionName=main  Nodes=n[0-$L] Default=YES DefaultTime=10 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=n0      MaxTime=5   DefaultTime=1  PriorityTier=10 PreemptMode=OFF
PartitionName=low   Nodes=n[0-$L]             DefaultTime=10 PriorityTier=1  PreemptMode=REQUEUE GraceTime=${SU_GRACE:-5}
EOF
[ "$GPUS" = 0 ] || echo "NodeName=n[0-$L] Name=gpu File=$B/dev/gpu[0-$((GPUS-1))]" >"$B/gres.conf"
export SLURM_CONF="$B/slurm.conf"
echo "export SLURM_CONF=$SLURM_CONF" >"$B/env.sh"
# jobs must resolve n0..: slurmd gets an /etc/hosts of its own (mount namespace), the machine's stays as it is
{ cat /etc/hosts; i=0; while [ $i -lt "$N" ]; do echo "127.0.0.1 n$i"; i=$((i+1)); done; } >"$B/hosts"

# 3. daemons --------------------------------------------------------------------------------------
munged --key-file="$B/munge.key" --socket="$S" --pid-file="$B/munged.pid" \
       --log-file="$B/munged.log" --seed-file="$B/munged.seed" || die munged
say "munged"
slurmctld -c || die slurmctld
ns=1; unshare -m true 2>/dev/null || { ns=; say "no mount namespaces here: node names will not resolve inside jobs"; }
i=0; while [ $i -lt "$N" ]; do
  mkdir -p "$B/spool.n$i"
  if [ -n "$ns" ]; then unshare -m sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$B/hosts" slurmd -N n$i
  else slurmd -N n$i; fi || die "slurmd n$i"
  i=$((i+1))
done
say "slurmctld, $N slurmd"
up() { [ "$(sinfo -h -N -p main -o %T | grep -cx idle)" = "$N" ]; }
until_ok up
say "ready: $N nodes x $CPUS cpus x $GPUS gpus;  . $B/env.sh"
