#!/bin/bash
# A whole loop on one node: everything in one job that goes on by itself after time limits and preemptions.
#
#   MODEL=/models/my-model TRAIN=train.jsonl DEV=dev.jsonl RUN=/scratch/me/run sbatch -p PARTITION examples/slurm/one_node.sh
#
# As it stands, without a GPU and without any of those, it runs the testbed's loop.
#SBATCH --job-name=vpgea-loop --output=%x-%j.out
#SBATCH --nodes=1 --ntasks=1 --time=60
#SBATCH --requeue --open-mode=append --signal=B:USR1@120
# On a GPU node add, for example:  --gpus=1 --cpus-per-task=16 --mem=128G

EXAMPLES=${EXAMPLES:-$SLURM_SUBMIT_DIR/examples}
RUN=${RUN:-$SLURM_SUBMIT_DIR/runs/one-node}
CONFIG=${CONFIG:-$EXAMPLES/overthinker/overthinker.yaml}
VPGEA=${VPGEA:-vpgea}

# Your environment: module load ..., source .../bin/activate, export HF_HOME=...

# When the time is up, as seconds since 1970: vpgea stops by itself where nothing more fits before it.
export SLURM_JOB_END_TIME=${SLURM_JOB_END_TIME:-$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s)}

# The same command starts the loop and continues it. --offline: compute nodes often have no network.
srun $VPGEA loop --config "$CONFIG" --output-dir "$RUN" --offline \
  ${MODEL:+--model "$MODEL"} ${TRAIN:+--dataset "$TRAIN"} ${DEV:+--eval-dataset "$DEV"} ${ROUNDS:+--rounds "$ROUNDS"} &
STEP_PID=$! TOLD=

# Before the limit SLURM sends USR1 to this script; srun hands it on; vpgea saves and exits 75.
trap 'TOLD=1; kill -USR1 "$STEP_PID"' USR1
while :; do
  TOLD=; wait "$STEP_PID"; CODE=$?
  [ -n "$TOLD" ] || break
done

# 75: stopped after saving. 143, 138: ended before it could. Everything else is an end.
case $CODE in
  75 | 138 | 143) [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ] && scontrol requeue "$SLURM_JOB_ID" && exit 0 ;;
esac
exit "$CODE"
