"""The `train` section: how the student learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.section import Loss, Provider, Section

LIVE_METHODS = ("whitebox", "on_policy", "cross_tokenizer")  # the teacher scores while the student learns
SERVED_METHODS = ("whitebox", "on_policy")  # ... and may do so on a vLLM server


class Train(Section):
    """How the student learns."""

    method: Literal["auto", "sft", "offline_topk", "whitebox", "on_policy", "cross_tokenizer", "preference"] = "sft"
    """`auto`: chosen before the run starts by what the teacher gives, the tokenizers and this machine's memory;
    `distill plan` says which and why. `sft`: teacher text. `offline_topk`: stored teacher log-probabilities.
    `whitebox`: live teacher with the student's tokenizer. `on_policy`: the same on the student's own answers.
    `cross_tokenizer`: live teacher with another tokenizer, aligned by the bytes of the text. `preference`: the
    teacher's answer rather than the untrained student's own (DPO); no live teacher needed. The teacher of `whitebox`
    and `on_policy` is in this process (`teacher.kind: transformers`) or on a vLLM server of yours (`openai`, with
    `top_logprobs`: it scores by `prompt_logprobs`)."""
    loss: Loss = Field(default="forward_kl", validate_default=True)
    """Divergence between teacher and student. `sft` uses cross entropy on the teacher's text and ignores it."""
    kd_weight: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the divergence in `kd_weight * T^2 * divergence + (1 - kd_weight) * cross_entropy`."""
    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Softmax temperature of the divergence; the loss is multiplied by its square (Hinton et al. 2015)."""
    rollout_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """`on_policy`: share of the steps that learn from the student's own answers; the others learn teacher text."""
    rollout_max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """`on_policy`, `preference`: longest answer of the student, in tokens."""
    rollout_temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """`on_policy`, `preference`: sampling temperature of the student's answers."""
    rollout_objective: Literal["full", "sampled"] = "full"
    """`on_policy`: `full` compares whole distributions with `loss`; `sampled` is the policy gradient of reverse KL
    on the sampled token alone (needs `rollout_temperature: 1`)."""
    rollout_engine: Provider | None = None
    """`on_policy`: who draws the student's answers. Default: this process. `{kind: openai, base_url: ..., model: ...}`:
    a vLLM server of yours that serves the student's base as `model` (docs/training.md says how it is started). It is
    given the adapter before every step that needs it, and proven to have it. Needs `student.adapter.kind: lora`."""
    preference_beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """`preference`: how fast a preference counts as learnt; small values let the student move further."""
    align: Literal["likelihood", "uld"] = "likelihood"
    """`cross_tokenizer`: match the probability of each aligned stretch of text, or sorted token probabilities."""
    lr: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps with a rising learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient norm is clipped to this."""
    epochs: Annotated[int, Field(ge=1)] = 2
    """Passes over the data."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows per optimizer step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows per forward pass; the rest of the batch is accumulated."""
    micro_batch_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens per forward pass, padding included; rows of similar length share a pass, at most `micro_batch_size` of
    them (0 = no limit but `micro_batch_size`). A row longer than this has a pass of its own."""
    packing: bool = False
    """Lay the rows of a forward pass end to end instead of padding them; no row sees another. Same result. For rows
    of unlike lengths on a GPU: on a CPU, padded rows of similar length with a shared prefix are faster."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more work. Turns `share_prefix` off."""
    liger: bool = False
    """Liger's fused RMSNorm, rotary positions and gated MLP in the student, on CUDA; never its loss. Needs
    `pip install 'alambic[liger]'`."""
    reasoning: bool = False
    """Learn the teacher's reasoning before the answer, not the answer alone."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    chunk_tokens: Annotated[int, Field(ge=0)] = 0
    """Completion positions whose logits exist at the same time (0 = as many as fill 64 MB)."""
    share_prefix: bool = True
    """Compute what the prompts of a micro-batch begin with once for all of its rows. Same result, less work."""
    max_spike: Annotated[float, Field(ge=0)] = 10.0
    """Stop before a step whose loss lies this many robust standard deviations above the median of the last 32 (0 =
    never stop). A deviation is never taken to be less than a tenth of the loss at the start."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Steps between measurements on the held-out rows (0 = at the start of each epoch). The end is always measured."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many measurements in a row without a lower held-out loss, and keep the student that had the
    lowest (0 = train to the end and keep the last)."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Where the losses go besides `metrics.jsonl`. A tracker may send them elsewhere: none is on by default."""
    eur_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of the training machine per hour, in EUR. Unknown stays unknown."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between checkpoints (0 = after every step)."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Good checkpoints kept."""
    shard: bool = False
    """Of several processes (torchrun), each holds a part of the student, its gradients and its optimizer (FSDP2), not
    all of them (DDP). A live teacher is whole in each."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads (0 = all cores)."""

    @model_validator(mode="after")
    def _sampled_rollouts_are_unbiased(self) -> Train:
        if self.method == "on_policy" and self.rollout_objective == "sampled" and self.rollout_temperature != 1:
            raise ValueError("rollout_objective 'sampled' needs rollout_temperature 1: else its gradient is biased")
        return self

    @model_validator(mode="after")
    def _a_server_draws_for_on_policy_alone(self) -> Train:
        if self.rollout_engine is None:
            return self
        if self.rollout_engine.kind != "openai":
            raise ValueError(
                f"rollout_engine is a vLLM server (kind: openai), and its kind is {self.rollout_engine.kind!r}; leave "
                "it out to let the student answer in this process"
            )
        if self.method != "on_policy":
            raise ValueError(f"rollout_engine draws the answers of method on_policy, and method is {self.method!r}")
        return self

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> Train:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch_size ({self.micro_batch_size})"
            )
        return self
