"""Passages of your own documents, and questions that the teacher writes about them.

Rows have the fields `prompt` (the question), `passage`, `source` (the file), `place` (number of the passage). For
answers that rest on the passage, put it into the template: `prompts.template: "{{ passage }}\n\n{{ prompt }}"`. The
student learns with the passage, or without it when `student.prompt.template` leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distill.errors import DataError
from distill.generate.fence import fenced
from distill.generate.sources._base import Wanted, WriterConfig, as_list, name_of
from distill.generate.sources._passages import KNOWN, passages, read_document
from distill.records import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from distill.generate.sources._base import Bench

ORDER = (
    "Write {number} different question{s} that a reader may ask and that the passage below answers completely. "
    "Write in the language of the passage. Each question must be understandable without the passage: name what it is "
    "about, and do not say 'the passage' or 'the text'.{about}\n\n{passage}\n\n{reply}"
)


class Config(WriterConfig):
    """Which documents, how they are cut, and how many questions each passage gets."""

    PATHS: ClassVar[tuple[str, ...]] = ("path",)
    kind: Literal["documents"] = "documents"
    path: str
    """A document, or a folder of them: .txt, .md, .rst, .html and .pdf (with pypdf) are read, hidden files are not."""
    unit: Literal["characters", "tokens"] = "characters"
    """What `size` and `overlap` count. Tokens are the student's."""
    size: Annotated[int, Field(ge=20)] = 1500
    """Longest passage. Cut at the end of a sentence or paragraph."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """The last whole sentences of a passage, up to this length, are repeated at the head of the next one."""
    min_size: Annotated[int, Field(ge=0)] = 80
    """Shorter passages (a title, a page number) are left out."""
    questions: Annotated[int, Field(ge=0, le=50)] = 2
    """Questions per passage. 0 = none: the passages themselves are the rows."""
    about: str = ""
    """What kind of questions, in a sentence added to the order."""

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Config:
        if not self.overlap < self.size or not self.min_size < self.size:
            raise ValueError(
                f"overlap ({self.overlap}) and min_size ({self.min_size}) must be below size ({self.size})"
            )
        return self


def make(config: Config, bench: Bench) -> list[dict[str, Any]]:
    """One row for each passage, or for each question. The passage is the cluster. Raises DataError."""
    found = _passages(config, bench)
    if not config.questions:
        return [{"id": row["cluster"], **row} for row in found]
    about = f" {config.about.strip()}" if config.about.strip() else ""
    wanted = [
        Wanted(
            (
                Message(
                    "user",
                    ORDER.format(
                        number=config.questions,
                        s="" if config.questions == 1 else "s",
                        about=about,
                        passage=fenced(row["passage"], "passage", bench.seed),
                        reply=as_list(config.questions),
                    ),
                ),
            ),
            config.questions,
        )
        for row in found
    ]
    rows = []
    for row, texts in zip(found, bench.write(wanted), strict=True):
        for text in {item.text: item for item in texts[: config.questions]}.values():
            identity = name_of("q", row["source"], row["passage"], text.text)
            rows.append({"id": identity, "prompt": text.text, **row, "request_key": text.key})
    return list({row["id"]: row for row in rows}.values())


def _passages(config: Config, bench: Bench) -> list[dict[str, Any]]:
    root = bench.resolve(config.path)
    if not root.exists():
        raise DataError("no such file or folder", where=str(root))
    measure: Callable[[str], int] = len
    if config.unit == "tokens":
        tokenizer = bench.tokenizer()

        def measure(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False))

    found: list[dict[str, Any]] = []
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
    for file in files:
        name = file.relative_to(root).as_posix() if root.is_dir() else file.name
        if file.suffix.lower() not in KNOWN or any(part.startswith(".") for part in name.split("/")):
            continue
        bench.found += 1
        try:
            cut = passages(read_document(file), config.size, config.overlap, measure)
        except (ValueError, OSError) as error:
            bench.bad.append((str(file), 1, str(getattr(error, "strerror", None) or error)))
            continue
        found += [
            {"cluster": f"{name}#{place}", "passage": text, "source": name, "place": place}
            for place, text in enumerate(cut, start=1)
            if measure(text) >= config.min_size
        ]
    bench.settle()
    if not found:
        raise DataError(f"no passage in {bench.found} documents; read are: {', '.join(KNOWN)}", where=str(root))
    return found
