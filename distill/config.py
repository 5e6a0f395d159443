"""One YAML file = one run. Parsing, overrides, validation; nothing heavy is imported here.

The file is YAML 1.2 (``no`` is text, ``2e-4`` is a number), without tags, anchors or duplicate keys.
Overrides (``train.lr=2e-5``) go through the same parser. Every problem is reported at once, each with file,
dotted path and the nearest known name. Paths in the file are relative to the file.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from distill import plugins
from distill.errors import ConfigError
from distill.plugins import PluginConfig
from distill.records import Sampling, canonical_json
from distill.strict_yaml import apply_override, read_yaml

LIVE_METHODS = ("whitebox", "on_policy", "cross_tokenizer")  # the teacher scores in this process
M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """Base of every part of the configuration: unknown keys are refused, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


def plugin(package: str) -> BeforeValidator:
    """Validate a mapping with the ``Config`` of the plug-in its ``kind`` names. A bare name means its defaults."""

    def validate(value: Any) -> Any:
        if isinstance(value, PluginConfig):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            raise ValueError(f"expected a mapping with a 'kind', got {value!r}")
        kind = value.get("kind")
        if not isinstance(kind, str):
            raise ValueError(f"'kind' is missing; available: {', '.join(plugins.available(package))}")
        try:
            module = plugins.load(package, kind)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        try:
            return module.Config.model_validate(value)
        except ValidationError as error:
            raise PluginInvalid(error, module.Config) from None

    return BeforeValidator(validate)


class PluginInvalid(ValueError):
    """Carries a plug-in's own problems, and which settings it has, up to the one report."""

    def __init__(self, error: ValidationError, model: type[BaseModel]):
        super().__init__("invalid plug-in settings")
        self.error, self.model = error, model


Provider = Annotated[SerializeAsAny[PluginConfig], plugin("distill.providers")]
Loss = Annotated[SerializeAsAny[PluginConfig], plugin("distill.losses")]
Filter = Annotated[SerializeAsAny[PluginConfig], plugin("distill.generate.filters")]
Verifier = Annotated[SerializeAsAny[PluginConfig], plugin("distill.generate.verifiers")]
Task = Annotated[SerializeAsAny[PluginConfig], plugin("evals.tasks")]
Target = Annotated[SerializeAsAny[PluginConfig], plugin("distill.release.targets")]


class Example(Section):
    """A worked example, shown to the model before the question."""

    user: str
    """What is asked, as the template would write it."""
    assistant: str
    """The answer wanted."""


class Prompts(Section):
    """Where the prompts come from."""

    path: str
    """JSONL, CSV, TSV or Parquet file, or a folder written by `datasets`, relative to this configuration file."""
    system: str = ""
    """System message, the same for every prompt. Constant text belongs here: engines then reuse its cache."""
    examples: tuple[Example, ...] = ()
    """Worked examples between the system message and the question. Constant, so engines reuse their cache."""
    template: str = "{{ prompt }}"
    """Jinja template (sandboxed) of the user message; the fields of the row are its variables."""
    id_field: str = "id"
    """Field that names the row."""
    cluster_field: str | None = None
    """Field whose rows stay together in the train/holdout split. Default: each row is its own cluster."""
    lang_field: str | None = None
    """Field that holds the language code."""
    languages: tuple[str, ...] = ()
    """Keep only these languages, in equal numbers. Empty = all rows as they come."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many prompts: whole clusters are drawn at random with the run's seed."""
    choices: tuple[str, ...] = ()
    """The answer must be one of these texts. Engines that can are constrained to them."""
    on_error: Literal["refuse", "skip"] = "refuse"
    """A broken row stops the run before any call, or is skipped and counted."""


class Generate(Section):
    """How the teacher is asked."""

    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers per prompt."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest answer, in tokens, reasoning included."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 = greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling."""
    max_cost_eur: Annotated[float, Field(ge=0)] = 0.0
    """Hard cap on what this run may spend on paid teachers, in EUR, kept across restarts."""
    signals_top_k: Annotated[int, Field(ge=0, le=1024)] = 0
    """Keep this many teacher log-probabilities per answer token (0 = none). Needed by `offline_topk`."""
    signals_kind: Literal["topk", "sampled"] = "topk"
    """`topk`: the most likely tokens. `sampled`: tokens drawn from the whole distribution, an unbiased target
    (local teachers only; `signals_top_k` is then the number of draws)."""
    filters: tuple[Filter, ...] = ()
    """Answers are kept when every filter keeps them."""
    verifiers: tuple[Verifier, ...] = ()
    """Checks of an answer; an answer that fails one is rejected."""
    select: Literal["all", "first", "majority"] = "all"
    """Which of a prompt's kept answers go on. `first`: the first that passed. `majority`: the commonest text, once
    (Wang et al. 2022); the earliest on a tie. The others are counted as rejected, but not against `max_reject_rate`."""
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of the clusters kept out of training, for the held-out loss."""
    max_reject_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Stop (exit 13) when a larger share of the answers is unusable."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Generate:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples: {self.samples} needs a temperature above 0, or all answers are the same")
        return self

    def sampling(self, seed: int) -> Sampling:
        """These settings as part of a request."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, seed)


class Adapter(Section):
    """Low-rank adapter on the student (Hu et al. 2021)."""

    kind: Literal["lora", "dora", "none"] = "lora"
    """`none` trains all weights."""
    r: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Scale: the update is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    targets: tuple[str, ...] = ("all-linear",)
    """Module names, or `all-linear`."""


class StudentPrompt(Section):
    """A shorter prompt for the student: what the long one says is learnt (Snell et al. 2022, arXiv 2209.15189)."""

    system: str = ""
    """System message of the student."""
    examples: tuple[Example, ...] = ()
    """Worked examples of the student."""
    template: str | None = None
    """Jinja template of its user message; default: `prompts.template`."""


class Student(Section):
    """The model that will be yours."""

    model: str
    """Catalogue name, `hub:ID@REVISION`, `path:DIR` or `package:...#sha256=...`."""
    adapter: Adapter = Field(default_factory=Adapter)
    """Low-rank adapter, or all weights."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the processor multiplies it natively, else float32."""
    prompt: StudentPrompt | None = None
    """How the student is asked, in training, in the evaluation and by its users. Default: as the teacher is."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Longest row in tokens. A longer row is dropped and counted, never cut."""


class Train(Section):
    """How the student learns."""

    method: Literal["sft", "offline_topk", "whitebox", "on_policy", "cross_tokenizer", "preference"] = "sft"
    """`sft`: teacher text. `offline_topk`: stored teacher log-probabilities. `whitebox`: live teacher with the
    student's tokenizer. `on_policy`: the same on the student's own answers. `cross_tokenizer`: live teacher with
    another tokenizer, aligned by the bytes of the text. `preference`: the teacher's answer rather than the untrained
    student's own (DPO); no live teacher needed."""
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
    reasoning: bool = False
    """Learn the teacher's reasoning before the answer, not the answer alone."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    chunk_tokens: Annotated[int, Field(ge=0)] = 0
    """Completion positions whose logits exist at the same time (0 = as many as fill 32 MB)."""
    share_prefix: bool = True
    """Compute what the prompts of a micro-batch begin with once for all of its rows. Same result, less work."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between checkpoints (0 = after every step)."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Good checkpoints kept."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads (0 = all cores)."""

    @model_validator(mode="after")
    def _sampled_rollouts_are_unbiased(self) -> Train:
        if self.method == "on_policy" and self.rollout_objective == "sampled" and self.rollout_temperature != 1:
            raise ValueError("rollout_objective 'sampled' needs rollout_temperature 1: else its gradient is biased")
        return self

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> Train:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of micro_batch_size ({self.micro_batch_size})"
            )
        return self


class Serving(Section):
    """What running a model on your own machine costs. Stated by you, printed in the report."""

    eur_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of the machine per hour, in EUR. Unknown stays unknown: no cost is then claimed."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the paid hours in which the machine really answers."""
    amortise_months: Annotated[int, Field(ge=1, le=120)] = 12
    """Months over which the one-off bill of the distillation is spread in the break-even."""
    source: str = ""
    """Where the price comes from, and its date."""


class Eval(Section):
    """How student and teacher are compared."""

    tasks: tuple[Task, ...] = ()
    """Task files with their settings."""
    arms: tuple[Literal["teacher", "base", "base_forced", "base_prompted", "student", "baseline"], ...] = (
        "teacher",
        "base",
        "base_forced",
        "student",
        "baseline",
    )
    """Who answers. `base_forced`: the untouched student held to the legal answers. `base_prompted`: the same with the
    teacher's prompt, where the student has a shorter one. `baseline`: TF-IDF and logistic regression on the same
    teacher labels."""
    alternatives: tuple[Provider, ...] = ()
    """Further systems to judge beside the student: the cheap API that may make the distillation needless."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Non-inferiority margin: the student may lose at most this much accuracy against the teacher."""
    gate: Literal["none", "teacher", "base"] = "none"
    """`teacher`: exit 20/21 unless the student is non-inferior. `base`: unless it beats the base student."""
    draws: Annotated[int, Field(ge=1000)] = 10_000
    """Cluster-bootstrap draws, seeded."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Items answered at once by local models."""
    serving: Serving = Field(default_factory=Serving)
    """Cost of the machine the local arms run on."""
    teacher_serving: Serving | None = None
    """Cost of the machine a self-hosted teacher server runs on. A teacher in this process costs `serving`."""
    examples: Annotated[int, Field(ge=0)] = 50
    """Lost, gained and copied-error items shown in the report, each."""


class Declared(Section):
    """What only a person can say. It goes into the papers marked as declared; what is empty is marked as missing."""

    legal_name: str = ""
    """Legal name of who puts the student on the market under its own name."""
    contact: str = ""
    """Contact for questions about the model."""
    country: str = ""
    """Country of headquarters, ISO 3166-1 alpha-2."""
    lei: str = ""
    """LEI or EUID."""
    release_date: str = ""
    """Date of the release, YYYY-MM-DD. Not taken from a clock: a bundle is the same whenever it is built."""
    eu_market_date: str = ""
    """Date on the Union market, YYYY-MM-DD."""
    distribution: str = ""
    """How it is delivered: download, on-premises, endpoint."""
    acceptable_use: str = ""
    """Acceptable use policy, or where it is."""
    intended_use: str = ""
    """Intended and restricted uses."""
    data_sources: str = ""
    """Where the prompts come from: public, licensed or private."""
    personal_data: str = ""
    """Legal basis, when personal data are in the prompts; or that there are none."""
    copyright_policy: str = ""
    """What was done about reservations of text and data mining."""
    annual_cost_eur: str = ""
    """Yearly price to the client, in EUR."""
    exit_plan: str = ""
    """How the client leaves."""
    rebound: str = ""
    """What was considered about more use because it is cheaper."""


class Release(Section):
    """What the client receives."""

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$")] = "0.1.0"
    """Version of the bundle."""
    targets: tuple[Target, ...] = Field(default=("merged",), validate_default=True)
    """Exports, each loaded back and checked."""
    licence: str = "apache-2.0"
    """Licence of the released weights."""
    summary: str = ""
    """One sentence for the model card: what the student is for."""
    languages: tuple[str, ...] = ()
    """Languages the student is meant for; default: those of the data."""
    rescore: Annotated[int, Field(ge=0)] = 64
    """Items of the evaluation that each form of the weights answers again (0 = none). A form that scores worse than
    the student by more than `eval.margin` fails the release."""
    sign_key: str = ""
    """PEM file of an elliptic-curve private key (P-256, P-384, P-521) that signs the bundle. Empty = not signed."""
    sign_password_env: str = ""
    """Name of the environment variable that holds the key's password. Empty = the key has none."""
    previous: str = ""
    """Folder of the release before this one: what changed is written down, and the student may not be worse than
    it by more than `eval.margin` on the items both answered (exit 20, or 21 when there are too few to tell)."""
    declared: Declared = Field(default_factory=Declared)
    """What only a person can say, for the European dossier."""


class Waiver(Section):
    """A person who takes a restricted or unknown licence upon them. What is prohibited cannot be waived."""

    model: Annotated[str, Field(min_length=1)]
    """The model it is for, exactly as written in this file."""
    name: Annotated[str, Field(min_length=2)]
    """Who decided."""
    date: datetime.date
    """When."""
    reason: Annotated[str, Field(min_length=10)]
    """Why it is all right."""


class Policy(Section):
    """What the student is for, and where prompts may go. Checked before anything is sent."""

    use: Literal["commercial", "internal", "research"] = "commercial"
    """`commercial`: sold or passed on. `internal`: stays in the company. `research`: no commercial use at all."""
    regions: tuple[Annotated[str, Field(pattern=r"^([A-Z]{2}|EEA|\*)$")], ...] = ("EU", "EEA", "CH")
    """Where a provider may process prompts: country codes, EU, EEA, or * for anywhere."""
    waivers: tuple[Waiver, ...] = ()
    """Licences that a person has taken upon them, written into the bundle."""


class RunConfig(Section):
    """One run, from prompts to client bundle."""

    name: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]*$", max_length=80)]
    """Name of the run; its folder is `runs/<name>`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything: draws, splits, initialisation, row order, bootstrap."""
    prompts: Prompts
    """Where the prompts come from."""
    teacher: Provider
    """Who is asked."""
    generate: Generate = Field(default_factory=Generate)
    """How the teacher is asked."""
    student: Student
    """The model that will be yours."""
    train: Train = Field(default_factory=Train)
    """How it learns."""
    eval: Eval = Field(default_factory=Eval)
    """How student and teacher are compared."""
    release: Release = Field(default_factory=Release)
    """What the client receives."""
    policy: Policy = Field(default_factory=Policy)
    """What the student is for, and where prompts may go."""

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _the_teacher_can_serve_the_method(self) -> RunConfig:
        method, kind = self.train.method, self.teacher.kind
        if method in LIVE_METHODS and kind != "transformers":
            raise ValueError(
                f"train.method {method!r} needs the teacher's weights in this process, and teacher.kind is {kind!r}; "
                "use teacher.kind: transformers, or train.method: offline_topk or sft"
            )
        if method == "offline_topk" and not self.generate.signals_top_k:
            raise ValueError(
                "train.method 'offline_topk' learns from stored log-probabilities, and none are stored; "
                "set generate.signals_top_k (20, for example), or train.method: sft"
            )
        return self

    @model_validator(mode="after")
    def _one_prompt_where_the_teacher_reads_the_student(self) -> RunConfig:
        if self.student.prompt is not None and self.train.method not in ("sft", "offline_topk"):
            raise ValueError(
                f"student.prompt differs from the teacher's, and train.method {self.train.method!r} lets the teacher "
                "score the student's own prompt; use sft or offline_topk, or leave student.prompt out"
            )
        return self

    def student_prompts(self) -> Prompts:
        """`prompts`, as the student is asked."""
        own = self.student.prompt
        if own is None:
            return self.prompts
        template = self.prompts.template if own.template is None else own.template
        return self.prompts.model_copy(update={"system": own.system, "examples": own.examples, "template": template})

    def resolve(self, path: str) -> Path:
        """A path of this file as an absolute path (relative paths start at the configuration file)."""
        return (self._folder / Path(path).expanduser()).resolve()

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults included, as JSON values."""
        return self.model_dump(mode="json")

    def settings(self, *sections: str) -> dict[str, Any]:
        """The named top-level settings as JSON values: what a stage's key is made of."""
        return {name: value for name, value in self.resolved().items() if name in sections}

    def hash(self) -> str:
        """SHA-256 of the resolved configuration."""
        return hashlib.sha256(canonical_json(self.resolved())).hexdigest()


def load(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read, override and validate a configuration file. Raises ConfigError listing every problem."""
    values = read_yaml(path)
    for override in overrides or []:
        apply_override(values, override)
    config = validate(RunConfig, values, str(path))
    config._folder = path.resolve().parent
    return config


def validate(model: type[M], values: Any, where: str) -> M:
    """``model`` from plain values; ConfigError with one line for each problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = tuple(f"{where}: {line}" for line in problems(error, model))
        raise ConfigError(f"{len(lines)} problem(s)", problems=lines) from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=where) from None


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One readable line for each error, those of nested plug-ins included."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        path = prefix + ".".join(str(part) for part in item["loc"])
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, PluginInvalid):
            lines += problems(inner.error, inner.model, path + ".")
        elif item["type"] == "extra_forbidden":
            lines.append(_unknown_key(path, item["loc"], model))
        elif item["type"] == "missing":
            lines.append(f"{path} is required")
        else:
            shown = repr(item["input"])
            got = "" if item["type"] == "value_error" else f" (got {shown[:80]}{'...' if len(shown) > 80 else ''})"
            message = f"{item['msg'].removeprefix('Value error, ')}{got}"
            lines.append(f"{path}: {message}" if path else message)
    return lines


def _unknown_key(path: str, loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    fields = _siblings(model, loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.5)
    parent = path.rpartition(".")[0]
    if close:
        return f"{path} is not a setting; did you mean {parent + '.' if parent else ''}{close[0]}?"
    return f"{path} is not a setting; allowed here: {', '.join(fields)}" if fields else f"{path} is not a setting"


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        current = next(
            (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)), None
        )
        if current is None:
            return []
    return list(current.model_fields)
