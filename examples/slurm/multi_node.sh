#!/bin/bash
# A loop on many nodes: servers in an array of inference jobs, training on several nodes, round after round, without any
# process that stays on the login node. Run it there:
#
#   MODEL=/models/my-model TRAIN=train.jsonl DEV=dev.jsonl RUN=/scratch/me/run ROUNDS=10 \
#     INFERENCE=gpu TRAINING=gpu NODES=2 GPUS=8 PARTS=16 bash examples/slurm/multi_node.sh
#
# As it stands it runs the testbed on the default partition, without GPUs, with two nodes of one rank each.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
RUN=${RUN:-$PWD/runs/multi-node}
CONFIG=${CONFIG:-$HERE/../overthinker/overthinker.yaml}
GPUS=${GPUS:-0}
VPGEA=${VPGEA:-vpgea}

# What the cluster is like. You would keep this file once, as ~/.config/vpgea/site.yaml.
mkdir -p "$(dirname "$RUN")"
cat > "$RUN.site.yaml" <<SITE
parts: ${PARTS:-2}                  # inference jobs of a rollout, a filter, an evaluation: a server each
modules: []                         # e.g. [cuda/12.8]
setup: []                           # e.g. [source /venvs/vpgea/bin/activate]
inference:
  partition: ${INFERENCE:-null}
  gpus_per_node: $((GPUS > 0 ? 1 : 0))
  time: "${INFERENCE_TIME:-60}"     # short limits start sooner; what is not done is requeued
training:
  partition: ${TRAINING:-null}
  nodes: ${NODES:-2}
  tasks_per_node: $((GPUS > 0 ? GPUS : 1))   # a rank for each GPU
  gpus_per_node: $GPUS
  time: "${TRAINING_TIME:-60}"
SITE

# Let the scheduler look at it first; then queue what is missing. Both can be repeated.
run() {
  $VPGEA loop --launcher slurm --site "$RUN.site.yaml" --config "$CONFIG" --output-dir "$RUN" \
    ${MODEL:+--model "$MODEL"} ${TRAIN:+--dataset "$TRAIN"} ${DEV:+--eval-dataset "$DEV"} \
    ${ROUNDS:+--rounds "$ROUNDS"} "$@"
}
run "$@"
$VPGEA slurm status "$RUN"
