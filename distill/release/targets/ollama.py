"""Ollama: a Modelfile beside the GGUF file, with the chat template, where to stop, and how it was evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from distill.errors import ConfigError
from distill.records import Message
from distill.release.targets import gguf
from distill.release.targets._base import Export, Job, TargetConfig

if TYPE_CHECKING:
    from typing import Any

NEEDS = ("gguf",)
FOLDER = "serve/ollama"
MARKS = {"system": "\u27e8s\u27e9", "user": "\u27e8u\u27e9", "assistant": "\u27e8a\u27e9"}
"""Texts that no template holds and none treats in a special way."""


class Config(TargetConfig):
    """Modelfile for Ollama."""

    kind: str = "ollama"
    """`ollama`."""
    precision: Literal["", "f16", "q8_0", "q4_k_m"] = ""
    """Which GGUF file it serves. Empty: the only one there is."""


def export(job: Job, config: Config) -> Export:
    """Write `serve/ollama/Modelfile` and a README with the two commands."""
    from distill.models import end_ids, load_tokenizer

    tokenizer = load_tokenizer(job.weights)
    weights = gguf.named(job, config.precision)
    stops = [str(tokenizer.convert_ids_to_tokens(number)) for number in end_ids(tokenizer)]
    shape = turns_of(tokenizer)
    lines = [f"FROM ../../gguf/{weights.name}", f"TEMPLATE {quoted(go_template(shape))}"]
    head = job.head or ((Message("system", shape.default_system),) if shape.default_system else ())
    for message in head:
        word = "SYSTEM" if message.role == "system" else f"MESSAGE {message.role}"
        lines.append(f"{word} {quoted(message.content)}")
    lines += [f"PARAMETER stop {quoted(stop)}" for stop in dict.fromkeys(stops)]
    lines += ["PARAMETER temperature 0", ""]
    folder = job.bundle / FOLDER
    folder.mkdir(parents=True)
    (folder / "Modelfile").write_text("\n".join(lines), "utf-8")
    name = job.name.lower()
    commands = f"ollama create {name} -f Modelfile\nollama run {name}"
    (folder / "README.md").write_text(f"# {job.name} in Ollama\n\nIn this folder:\n\n```\n{commands}\n```\n", "utf-8")
    return Export((f"{FOLDER}/Modelfile", f"{FOLDER}/README.md"), facts={"folder": FOLDER})


@dataclass(frozen=True)
class Turns:
    """How a chat template writes a turn of each role, and the system message it adds when there is none."""

    before: dict[str, str]
    after: str
    default_system: str


def turns_of(tokenizer: Any) -> Turns:
    """Read off the real template what it writes around each role's text.

    Raises ConfigError when the template is not of the plain kind where every turn is written the same way.
    """

    def written(*roles: str, question: bool = False) -> str:
        turns = [{"role": role, "content": MARKS[role]} for role in roles]
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=question, tokenize=False))

    opened = written("system", "user", question=True)
    closed = written("system", "user", "assistant")
    system, _, rest = opened.partition(MARKS["system"])
    between, _, after_user = rest.partition(MARKS["user"])
    after = closed.removeprefix(opened + MARKS["assistant"])
    before = {"system": system, "user": between.removeprefix(after), "assistant": after_user.removeprefix(after)}
    made = Turns(before, after, "")

    def plain(*roles: str) -> str:
        return "".join(before[role] + MARKS[role] + after for role in roles)

    alone, default = written("user"), ""
    if alone != plain("user"):
        default = alone.removesuffix(plain("user")).removeprefix(system).removesuffix(after)
    long = ("system", "user", "assistant", "user", "assistant")
    holds = (
        after and written(*long) == plain(*long) and alone in (plain("user"), system + default + after + plain("user"))
    )
    if not holds or any(word in closed + default for word in ('"""', "{{", "}}")):
        raise ConfigError(
            "the chat template is not of the plain kind that Ollama's language can say",
            where="release.targets",
            next="leave the target ollama out; llamacpp reads the template from the GGUF file itself",
        )
    return replace(made, default_system=default)


def go_template(shape: Turns) -> str:
    """The chat template in Ollama's Go syntax. No trim marks: the blanks and line ends are the model's own."""
    parts = ["{{ range .Messages }}"]
    for number, (role, before) in enumerate(shape.before.items()):
        parts.append(
            f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{shape.after}'
        )
    return "".join([*parts, "{{ end }}{{ end }}", shape.before["assistant"]])


def quoted(text: str) -> str:
    """A value of a Modelfile. ConfigError for text that its syntax cannot hold."""
    if '"""' in text:
        raise ConfigError('a text with """ cannot be written in a Modelfile', where="release.targets")
    return f'"""{text}"""'
