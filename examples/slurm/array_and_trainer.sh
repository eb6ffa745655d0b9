#!/bin/bash
# One round by hand: many inference jobs draw and look, one training job learns. Run it on the login node:
#
#   MODEL=/models/my-model QUESTIONS=train.jsonl RUN=/scratch/me/round PARTS=16 INFERENCE=gpu-small TRAINING=gpu-big \
#     bash examples/slurm/array_and_trainer.sh
#
# As it stands it runs on the testbed, on the default partition. Each phase reads the folder of the one before, so each
# can be on other hardware, and any can be submitted again: what is done is not done twice.
# (`vpgea loop --launcher slurm` does all of this for many rounds, with requeues. This shows what is beneath.)
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
RUN=${RUN:-$PWD/runs/array}
CONFIG=${CONFIG:-$HERE/../overthinker/overthinker.yaml}
PARTS=${PARTS:-2}
LIMIT=${LIMIT:+--limit $LIMIT}
VPGEA=${VPGEA:-vpgea}
MODEL=${MODEL:+--model $MODEL}
QUESTIONS=${QUESTIONS:+--dataset $QUESTIONS}

mkdir -p "$RUN/logs"   # where this folder is missing, jobs fail without a word
submit() {             # submit NAME AFTER OPTIONS... -- COMMAND...: print the job's id
  local name=$1 after=$2; shift 2
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  sbatch --parsable --job-name="$name" --output="$RUN/logs/%x-%A_%a.out" --open-mode=append \
    ${after:+--dependency=afterok:$after} --kill-on-invalid-dep=yes "${options[@]}" --wrap "srun $*"
}

# Element I of the array does part I of PARTS. With a GPU each starts an SGLang server of its own: add --gpus=1.
ROLLOUT=$(submit rollout "" --array="0-$((PARTS - 1))" ${INFERENCE:+-p $INFERENCE} -- \
  $VPGEA rollout -c "$CONFIG" $MODEL $QUESTIONS $LIMIT -o "$RUN/rollout" --offline --shard "\$SLURM_ARRAY_TASK_ID/$PARTS")

# The last part to finish selects.
FILTER=$(submit filter "$ROLLOUT" --array="0-$((PARTS - 1))" ${INFERENCE:+-p $INFERENCE} -- \
  $VPGEA filter "$RUN/rollout" -o "$RUN/filter" --offline --shard "\$SLURM_ARRAY_TASK_ID/$PARTS")

DISTILL=$(submit distill "$FILTER" ${TRAINING:+-p $TRAINING} -- \
  $VPGEA distill "$RUN/filter" -o "$RUN/distill" --offline)

echo "rollout $ROLLOUT, filter $FILTER, distill $DISTILL; logs in $RUN/logs"
echo "afterwards: vpgea inspect $RUN/filter --stats"
