"""Where prompts may go, and what the student may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill import catalog
from distill.gates.verdict import Verdict

if TYPE_CHECKING:
    from distill.catalog.route import Route
    from distill.config import Policy, RunConfig

EU = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905
)
GROUPS = {"EU": EU, "EEA": EU | {"IS", "LI", "NO"}}


def region(role: str, route: Route, policy: Policy) -> Verdict:
    """Prompts go only where ``policy`` says; in this process and in one's own network they stay."""
    if route.kind != "api":
        return Verdict("region", role, str(route), "allowed", "prompts stay on machines of your own")
    if policy.confidential and route.host not in policy.hosts:
        named = ", ".join(policy.hosts) or "none"
        return Verdict(
            "region",
            role,
            str(route),
            "prohibited",
            f"the prompts are confidential and policy.hosts does not name {route.host} (named: {named})",
            unblock="a teacher in this process or in your own network; "
            f"or policy.hosts: [{route.host}], when your contract with them allows it",
        )
    where = route.provider.regions if route.provider else ()
    shown = ", ".join(where) or "not known"
    if "*" in policy.regions or (where and expand(where) <= expand(policy.regions)):
        return Verdict("region", role, str(route), "allowed", f"prompts are processed in: {shown}")
    return Verdict(
        "region",
        role,
        str(route),
        "prohibited" if where else "unknown",
        f"prompts would be processed in: {shown}; policy.regions allows {', '.join(policy.regions)}",
        unblock="a provider inside those regions (distill catalog providers), "
        f"a `providers` row in {catalog.USER_FILE} if your contract says otherwise, or policy.regions",
    )


def expand(codes: tuple[str, ...]) -> frozenset[str]:
    """Countries behind codes such as EU, EEA, CH."""
    return frozenset().union(*(GROUPS.get(code, frozenset({code})) for code in codes))


def name(config: RunConfig, found: list[Verdict]) -> list[Verdict]:
    """A student that descends from Llama and is passed on carries the name."""
    bound = [verdict for verdict in found if "NAME_PREFIX_LLAMA" in verdict.obligations]
    if not bound or config.policy.use != "commercial" or config.name.casefold().startswith("llama"):
        return []
    return [
        Verdict(
            "name",
            "student",
            config.name,
            "prohibited",
            f"{bound[0].role} {bound[0].subject} asks that its name starts with 'Llama'",
            rows=bound[0].rows,
            unblock=f"name: Llama-{config.name}; or policy.use: internal when nobody else receives it",
        )
    ]
