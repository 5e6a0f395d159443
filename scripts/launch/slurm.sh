#!/bin/bash
# Train on several machines of a Slurm cluster, with a vLLM teacher on one more, and a vLLM student on another.
#
#   TEACHER=Qwen/Qwen2.5-7B-Instruct sbatch --nodes=3 scripts/launch/slurm.sh team.yaml train.shard=true
#   STUDENT=utter-project/EuroLLM-1.7B-Instruct sbatch --nodes=3 scripts/launch/slurm.sh configs/on-policy.yaml
#
# The first node serves the teacher; without TEACHER, none does. In the configuration the teacher is
# `kind: openai, base_url: http://127.0.0.1:8000/v1`: every node reaches it there through a tunnel, so that a job that
# comes back on other nodes asks nothing twice. With STUDENT (the weights that `student.model` names), the next node
# draws the student's answers for `train.rollout_engine: {kind: openai, base_url: http://127.0.0.1:8001/v1,
# model: student}`; LORA_RANK is its adapter's. The others train. The run folder must be on a disk that all nodes see.
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
STUDENT=${STUDENT:-}
GPUS=${SLURM_GPUS_ON_NODE:-1}
mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
TUNNEL=true

serve() { # serve PORT MODEL FLAGS...: on the next node, which then does not train
  local port=$1 node=${NODES[0]}
  NODES=("${NODES[@]:1}")
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" \
    vllm serve "${@:2}" --host 127.0.0.1 --port "$port" --tensor-parallel-size "$GPUS" &
  until srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" curl -sf "http://127.0.0.1:$port/v1/models" > /dev/null; do
    sleep 5
  done
  TUNNEL+="; ssh -o StrictHostKeyChecking=accept-new -o ExitOnForwardFailure=yes -fNL $port:127.0.0.1:$port $node"
}

trap 'kill %1 %2 2> /dev/null || true' EXIT
if [[ -n $TEACHER ]]; then serve 8000 "$TEACHER"; fi
if [[ -n $STUDENT ]]; then
  export VLLM_ALLOW_RUNTIME_LORA_UPDATING=True
  serve 8001 "$STUDENT" --served-model-name student --enable-lora --max-lora-rank "${LORA_RANK:-64}"
fi

COUNT=${#NODES[@]}
on() { # on NODES COMMAND...: the command on each of these nodes, both servers within reach
  srun --nodes="$1" --ntasks="$1" --nodelist="$(IFS=,; echo "${NODES[*]:0:$1}")" \
    bash -c "{ $TUNNEL; } 2> /dev/null || true; exec \"\$@\"" bash "${@:2}"
}

on 1 distill generate "$@"
on "$COUNT" torchrun --nnodes="$COUNT" --nproc_per_node="$GPUS" --rdzv_backend=c10d \
  --rdzv_endpoint="${NODES[0]}:29500" --rdzv_id="$SLURM_JOB_ID" -m distill train "$@"
on 1 distill run "$@"
echo "$CONFIG: done"
