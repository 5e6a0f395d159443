"""The batch API of an OpenAI-compatible endpoint: a file of requests goes up, files of answers come down.

Nothing is repeated here and nothing is kept: ``distill.query.batch`` decides, and writes down first what it does.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.providers._base import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill.providers.openai import OpenAIProvider
    from distill.records import Request

TAG = "alambic_job"
MAX_FILE = 512 * 1024 * 1024
MAX_UPLOAD = 100 * 1024 * 1024
"""Bytes of one file of requests; common limits are 100 to 200 MB."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
PAGE = 100
PAGES = 100
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Remote:
    """A batch as the endpoint tells it. ``files``: answers first, then errors. ``failed``: why it never ran."""

    id: str
    status: str
    files: tuple[str, ...] = ()
    failed: str = ""

    @property
    def ended(self) -> bool:
        """No more answers will come."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Line:
    """One result. ``body``: the chat completion; empty when ``status`` or ``code`` say why there is none."""

    key: str
    body: bytes = b""
    status: int | None = None
    code: str = ""
    request_id: str = ""
    detail: str = ""


class Batches:
    """See the module. Every coroutine raises NoAnswer, TeacherRefused or Refused."""

    def __init__(self, provider: OpenAIProvider):
        self._provider = provider

    def line(self, key: str, request: Request) -> bytes:
        """One request of the file."""
        body = self._provider.body(request)
        value = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(value).encode() + b"\n"

    async def upload(self, tag: str, data: bytes) -> str:
        """The id of the uploaded file."""
        mark = secrets.token_hex(16)
        parts = (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{tag}.jsonl"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        form = parts.encode() + data + f"\r\n--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        _, raw = await self._provider.send("POST", "/files", form, kind=kind)
        return str(_object(raw)["id"])

    async def create(self, file: str, tag: str) -> Remote:
        """Start the batch of a file. ``tag`` is what :meth:`find` finds it by."""
        value = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {TAG: tag},
        }
        _, raw = await self._provider.send("POST", "/batches", json.dumps(value).encode())
        return _remote(_object(raw))

    async def find(self, tag: str, created: float) -> Remote | None:
        """The batch with this tag, made around or after ``created`` (seconds since 1970); None when there is none."""
        after = ""
        for _ in range(PAGES):
            _, raw = await self._provider.send("GET", f"/batches?limit={PAGE}{after}")
            page = _object(raw)
            rows = [row for row in page.get("data") or [] if isinstance(row, dict) and row.get("id")]
            for row in rows:
                if isinstance(row.get("metadata"), dict) and row["metadata"].get(TAG) == tag:
                    return _remote(row)
            oldest = rows[-1].get("created_at") if rows else None
            if not page.get("has_more") or not rows or (isinstance(oldest, int) and oldest < created - DAY_S):
                return None
            after = f"&after={rows[-1]['id']}"
        return None

    async def look(self, remote: str) -> Remote | None:
        """How the batch is doing; None when the endpoint no longer knows it."""
        try:
            _, raw = await self._provider.send("GET", f"/batches/{remote}")
        except NoAnswer as failure:
            if failure.status == 404:
                return None
            raise
        return _remote(_object(raw))

    async def results(self, file: str) -> list[Line]:
        """The results in a file. A line that cannot be read is left out: its request then has no result."""
        _, raw = await self._provider.send("GET", f"/files/{file}/content", most=MAX_FILE)
        return list(_lines(raw))


def _object(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises NoAnswer for anything else, an error in a 200 included."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or (value.get("error") and "id" not in value):
        raise NoAnswer("not_a_batch_answer", detail=raw[:200].decode("utf-8", "replace"))
    if "id" not in value and "data" not in value:
        raise NoAnswer("not_a_batch_answer", detail="no id")
    return value


def _remote(value: dict[str, Any]) -> Remote:
    files = tuple(str(value[name]) for name in ("output_file_id", "error_file_id") if value.get(name))
    errors = value.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    first = rows[0] if isinstance(rows, list) and rows else rows
    said = first.get("message") or first.get("code") if isinstance(first, dict) else first
    return Remote(str(value.get("id")), str(value.get("status")), files, str(said or "")[:200])


def _lines(raw: bytes) -> Iterator[Line]:
    for text in raw.split(b"\n"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict) or not isinstance(key := value.get("custom_id"), str):
            continue
        yield _line(key, value)


def _line(key: str, value: dict[str, Any]) -> Line:
    response, error = value.get("response"), value.get("error")
    code, detail = "", ""
    if isinstance(error, dict):
        code, detail = str(error.get("code") or "error"), str(error.get("message") or "")
    if not isinstance(response, dict):
        return Line(key, code=code or "error", detail=detail[:200])
    status, body = response.get("status_code"), response.get("body")
    status = status if isinstance(status, int) else None
    if status is not None and 200 <= status < 300 and not error and body is not None:
        raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return Line(key, raw, status, request_id=str(response.get("request_id") or "")[:200])
    if isinstance(body, dict) and isinstance(said := body.get("error"), dict):
        code, detail = code or str(said.get("code") or ""), detail or str(said.get("message") or "")
    return Line(key, b"", status, code, detail=detail[:200])
