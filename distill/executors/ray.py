"""On a Ray cluster: a pool of workers, each with the provider of its own, asked in leases by this process.

A lease is what one ``ask`` gets: a batch of reserved requests. The worker only answers; this process alone reserves,
commits and pays, as it does locally. A worker that dies takes its leases with it: they become `uncertain` and are
repeated as the retry policy allows, while Ray starts the worker anew. Workers need alambic, the model and the
environment variable of the key; the key is never sent through the cluster.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from distill import __version__, errors, plugins
from distill.errors import DistillError, EnvironmentProblem, MissingDependency
from distill.executors._base import ExecutorConfig
from distill.providers._base import Context, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.providers._base import Pace, Provider
    from distill.records import Answer, Completion, Request

ON_WORKERS = ("score_tokens", "vocab")  # what needs the weights
PING_S = 0.5
OBJECT_STORE = 200 * 1024 * 1024


class Config(ExecutorConfig):
    """Which cluster, how many workers, and what each of them takes."""

    kind: Literal["ray"] = "ray"
    address: Annotated[str, Field(pattern=r"^(auto|(ray://)?[\w.\-]+:\d+)?$")] = ""
    """`host:port` or `ray://host:port` of a running cluster, `auto` for the one this machine belongs to. Empty: one
    is started on this machine, on the loopback address, and stopped at the end."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Workers, each with the model loaded once."""
    cpus: Annotated[float, Field(ge=0)] = 1.0
    """Cores that each worker takes."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs that each worker takes."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """How long all workers together may take to start."""


def spread(config: Config, settings: Any, context: Context) -> Provider:
    """The provider behind a pool of workers. Raises MissingDependency, EnvironmentProblem, and what a worker raised."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependency("ray", "generate.executor: ray", "ray") from None
    inner = plugins.load("distill.providers", settings.kind).build(settings, context)
    return RayProvider(config, inner, settings, context)


# -- in a worker process ------------------------------------------------------------------------------------------


class Worker:
    """The same provider, in a process of the cluster."""

    def __init__(self, settings: Any, folder: str):
        self._failure: dict[str, Any] | None = None
        try:
            module = plugins.load("distill.providers", settings.kind)
            self._provider = module.build(settings, Context(folder=Path(folder)))
        except DistillError as error:  # told by ready(): a worker that cannot start is not started again for ever
            self._failure = _packed(error)

    async def ready(self) -> dict[str, Any]:
        """Who this is."""
        if self._failure is not None:
            return {"failed": self._failure}
        return {"pid": os.getpid(), "version": __version__, "identity": self._provider.identity()}

    async def ask(self, requests: list[Request]) -> dict[str, Any]:
        """Answers and the endpoint's pace, or what went wrong."""
        try:
            answers = await self._provider.ask(requests)
        except (DistillError, NoAnswer) as error:
            return {"failed": _packed(error), "pace": getattr(self._provider, "pace", None)}
        return {"answers": answers, "pace": getattr(self._provider, "pace", None)}

    async def get(self, name: str, *args: Any) -> Any:
        """A value of the provider, or of its method called with ``args``."""

        def work() -> Any:
            value = getattr(self._provider, name)
            return value(*args) if args else value

        return await asyncio.to_thread(work)


def _packed(error: DistillError | NoAnswer) -> dict[str, Any]:
    """An error as plain values: exceptions with keyword arguments do not survive a pickle."""
    fields = dict(vars(error))
    fields.pop("problems", None)
    return {"class": type(error).__name__, "first": error.args[0] if error.args else "", "fields": fields}


def _unpacked(value: dict[str, Any]) -> Exception:
    fields, first = dict(value["fields"]), value["first"]
    if value["class"] == "NoAnswer":
        return NoAnswer(fields.pop("reason"), **fields)
    if value["class"] == "MissingDependency":
        return EnvironmentProblem(f"on a worker: {first}", next=fields.get("next"))
    kind = getattr(errors, value["class"], DistillError)
    made: DistillError = kind(fields.pop("what", first), **{k: v for k, v in fields.items() if k in ("where", "next")})
    made.safe = fields.get("safe")
    return made


# -- in the process that asks -------------------------------------------------------------------------------------


class RayProvider:
    """A provider whose questions are answered by a pool."""

    def __init__(self, config: Config, inner: Any, settings: Any, context: Context):
        self._inner = inner
        self.batch_size, self.capabilities = inner.batch_size, inner.capabilities
        self.config = settings.model_copy(update={"concurrency": settings.concurrency * config.workers})
        self.pace: Pace | None = None
        _open(config)
        try:
            self._pool = Pool(config, settings, context)
        except BaseException:
            _leave()
            raise

    def identity(self) -> dict[str, Any]:
        """What all workers say they are: the answers are theirs."""
        return dict(self._pool.identity)

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """A lease for one worker. Raises what its provider raised; NoAnswer when the worker died."""
        result = await self._pool.lease(list(requests))
        self.pace = result.get("pace") or self.pace
        if "failed" in result:
            raise _unpacked(result["failed"])
        answers: list[Answer] = result["answers"]
        return answers

    def parse(self, raw: bytes) -> Completion:
        """As the provider reads it."""
        completion: Completion = self._inner.parse(raw)
        return completion

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (name in ON_WORKERS and not hasattr(type(self._inner), name)):
            raise AttributeError(name)
        if name == "vocab":
            return self._pool.get("vocab")
        if name == "score_tokens":
            return lambda items, k: self._pool.get("score_tokens", items, k)
        return getattr(self._inner, name)

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started here."""
        self._pool.close()
        self._inner.close()
        _leave()


class Pool:
    """Workers and how many leases each of them holds."""

    def __init__(self, config: Config, settings: Any, context: Context):
        import ray

        self._ray = ray
        options = {"num_cpus": config.cpus, "num_gpus": config.gpus, "max_restarts": -1, "max_task_retries": 0}
        make = ray.remote(**options)(Worker)
        folder = str(context.folder.resolve())
        self._workers = [make.remote(settings, folder) for _ in range(config.workers)]
        self._leases = [0] * config.workers
        self._down: dict[int, Any] = {}
        """Lost workers, and the question whether they are back."""
        found = self._started(config)
        self.pids = [row["pid"] for row in found]
        self.identity: dict[str, Any] = found[0]["identity"]
        different = [row for row in found if (row["version"], row["identity"]) != (__version__, self.identity)]
        if different:
            self.close()
            raise EnvironmentProblem(
                f"{len(different)} of {config.workers} workers have another model, device or version of alambic",
                where="generate.executor",
                next="install the same on every node",
            )

    def _started(self, config: Config) -> list[dict[str, Any]]:
        """What the workers say when all have started."""
        try:
            found = self._ray.get([w.ready.remote() for w in self._workers], timeout=config.start_timeout_s)
        except self._ray.exceptions.GetTimeoutError:
            self.close()
            raise EnvironmentProblem(
                f"{config.workers} workers of {config.cpus:g} cores and {config.gpus:g} GPUs did not start within"
                f" {config.start_timeout_s:g} s",
                where="generate.executor",
                next="ask for fewer or smaller workers, or wait for room in the cluster",
            ) from None
        except self._ray.exceptions.RayError as error:
            self.close()
            raise EnvironmentProblem(f"a worker does not start: {_line(error)}", where="generate.executor") from None
        if failed := next((row["failed"] for row in found if "failed" in row), None):
            self.close()
            raise _unpacked(failed)
        return list(found)

    async def lease(self, requests: list[Request]) -> dict[str, Any]:
        """What the least busy worker that is up makes of the requests."""
        self._look_who_is_back()
        if len(self._down) == len(self._workers):
            await asyncio.sleep(PING_S)
            raise NoAnswer("no_worker", billed=False, detail="all workers are down")
        up = [number for number in range(len(self._workers)) if number not in self._down]
        number = min(up, key=self._leases.__getitem__)
        self._leases[number] += 1
        reference = self._workers[number].ask.remote(requests)
        try:
            result: dict[str, Any] = await reference
        except asyncio.CancelledError:
            self._ray.cancel(reference)
            raise
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"a worker failed: {_line(error)}") from None
        except self._ray.exceptions.RayError as error:
            self._down[number] = self._workers[number].ready.remote()
            raise NoAnswer("worker_died", detail=_line(error)) from None
        finally:
            self._leases[number] -= 1
        return result

    def _look_who_is_back(self) -> None:
        """No lease goes to a worker that Ray is still starting anew."""
        for number, answer in list(self._down.items()):
            if not self._ray.wait([answer], timeout=0)[0]:
                continue
            try:
                row = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                self._down[number] = self._workers[number].ready.remote()
                continue
            if row.get("identity") == self.identity:
                self.pids[number] = row["pid"]
                del self._down[number]

    def get(self, name: str, *args: Any) -> Any:
        """A value of a worker's provider."""
        up = next(number for number in range(len(self._workers)) if number not in self._down or number == 0)
        return self._ray.get(self._workers[up].get.remote(name, *args))

    def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            self._ray.kill(worker)


_users = 0
_lock = threading.Lock()


def _open(config: Config) -> None:
    """Join the cluster, or start one, for the first provider that needs it."""
    import ray

    global _users
    with _lock:
        _users += 1
        if _users > 1 or ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
        on_term = signal.getsignal(signal.SIGTERM)
        try:
            if config.address:
                _reachable(config.address)
                ray.init(address=config.address, **quiet)
            else:
                ray.init(
                    include_dashboard=False, object_store_memory=OBJECT_STORE, _node_ip_address="127.0.0.1", **quiet
                )
        except Exception as error:  # Ray raises anything here, a bare Exception for a node that starts too slowly
            _users -= 1
            raise EnvironmentProblem(
                f"no Ray cluster: {_line(error)}",
                where="generate.executor",
                next="start one (ray start --head), give its address, or leave the address empty",
            ) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_term)  # Ray's own would leave without a commit


def _reachable(address: str) -> None:
    """Raise OSError at once where nothing listens; Ray itself would wait a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=5).close()


def _leave() -> None:
    import ray

    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            ray.shutdown()


def _line(error: BaseException) -> str:
    """The last line of an error, which says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
