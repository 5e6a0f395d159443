#!/bin/bash
# Train on several machines of a Slurm cluster, with a vLLM teacher on one more.
#
#   TEACHER=Qwen/Qwen2.5-7B-Instruct sbatch --nodes=3 scripts/launch/slurm.sh team.yaml train.shard=true
#
# The first node serves the teacher, the others train; without TEACHER, all train. In the configuration the teacher is
# `kind: openai, base_url: http://127.0.0.1:8000/v1`: every node reaches it there through a tunnel, so that a job that
# comes back on other nodes asks nothing twice. The run folder must be on a disk that all nodes see.
#SBATCH --job-name=distill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

set -euo pipefail
CONFIG=${1:?usage: sbatch scripts/launch/slurm.sh CONFIG [key=value ...]}
TEACHER=${TEACHER:-}
GPUS=${SLURM_GPUS_ON_NODE:-1}
mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
TUNNEL=true

if [[ -n $TEACHER ]]; then
  SERVER=${NODES[0]}
  NODES=("${NODES[@]:1}")
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$SERVER" \
    vllm serve "$TEACHER" --host 127.0.0.1 --port 8000 --tensor-parallel-size "$GPUS" &
  trap 'kill %1 2> /dev/null || true' EXIT
  until srun --nodes=1 --ntasks=1 --overlap --nodelist="$SERVER" curl -sf http://127.0.0.1:8000/v1/models > /dev/null; do
    sleep 5
  done
  TUNNEL="ssh -o StrictHostKeyChecking=accept-new -o ExitOnForwardFailure=yes -fNL 8000:127.0.0.1:8000 $SERVER"
fi

COUNT=${#NODES[@]}
on() { # on NODES COMMAND...: the command on each of these nodes, the teacher within reach
  srun --nodes="$1" --ntasks="$1" --nodelist="$(IFS=,; echo "${NODES[*]:0:$1}")" \
    bash -c "$TUNNEL 2> /dev/null || true; exec \"\$@\"" bash "${@:2}"
}

on 1 distill generate "$@"
on "$COUNT" torchrun --nnodes="$COUNT" --nproc_per_node="$GPUS" --rdzv_backend=c10d \
  --rdzv_endpoint="${NODES[0]}:29500" --rdzv_id="$SLURM_JOB_ID" -m distill train "$@"
on 1 distill run "$@"
echo "$CONFIG: done"
