"""Wildcards that mean more than their author may think, or less."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.loader import load_catalog
from egressproxy.patterns import is_public_suffix, parse_pattern
from egressproxy.policy.lint_finding import Code, Finding, named
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.patterns import Pattern
    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.rules import NameList, Rule

MULTI_TENANT: Final = frozenset(
    f"{service}.core.{cloud}"
    for service in ("blob", "dfs", "file", "queue", "table", "web")
    for cloud in ("windows.net", "chinacloudapi.cn", "usgovcloudapi.net")
) | {
    "azurecr.io",
    "azurecr.cn",
    "azurecr.us",
    "data.azurecr.io",
    "geo.azurecr.io",
    "vault.azure.net",
    "vault.azure.cn",
    "vault.usgovcloudapi.net",
    "vaultcore.azure.net",
    "managedhsm.azure.net",
    "azconfig.io",
    "azurewebsites.net",
    "chinacloudsites.cn",
    "azurewebsites.us",
    "azurestaticapps.net",
    "azurecontainerapps.io",
    "azurecontainer.io",
    "azure-api.net",
    "azurefd.net",
    "azureedge.net",
    "trafficmanager.net",
    "cloudapp.azure.com",
    "cloudapp.net",
    "servicebus.windows.net",
    "eventgrid.azure.net",
    "azure-devices.net",
    "service.signalr.net",
    "webpubsub.azure.com",
    "database.windows.net",
    "mysql.database.azure.com",
    "postgres.database.azure.com",
    "documents.azure.com",
    "mongo.cosmos.azure.com",
    "table.cosmos.azure.com",
    "redis.cache.windows.net",
    "search.windows.net",
    "openai.azure.com",
    "cognitiveservices.azure.com",
    "azureml.ms",
    # https://learn.microsoft.com/azure/private-link/private-endpoint-dns
    *(
        f"{service}.storage.azure.net"
        for service in ("blob", "dfs", "file", "queue", "table", "web")
    ),
    "azuredatabricks.net",
    "azurehdinsight.net",
    "azurehealthcareapis.com",
    "azuresynapse.net",
    "batch.azure.com",
    "cassandra.cosmos.azure.com",
    "digitaltwins.azure.net",
    "grafana.azure.com",
    "gremlin.cosmos.azure.com",
    "kusto.windows.net",
    "logic.azure.com",
    "redis.azure.net",
    "redisenterprise.cache.azure.net",
    "services.ai.azure.com",
    # Microsoft's for its tenants
    "b2clogin.com",
    "crm.dynamics.com",
    "devtunnels.ms",
    "onmicrosoft.com",
    "sharepoint.com",
    "githubusercontent.com",
    "amazonaws.com",
    "cloudfront.net",
    "googleapis.com",
    "r2.dev",
    "workers.dev",
    "aliyuncs.com",
    "b-cdn.net",
    "backblazeb2.com",
    "fastly.net",
    "firebaseio.com",
    "myqcloud.com",
    "oraclecloud.com",
    "wasabisys.com",
    # A name for whoever wants to see what comes out
    "burpcollaborator.net",
    "interact.sh",
    "loca.lt",
    *(f"oast.{end}" for end in ("fun", "live", "me", "online", "pro", "site")),
    "oastify.com",
    "webhook.site",
}
"""Suffixes under which anybody can have a name, beyond what publicsuffix.org lists as private."""

_ABOVE: Final[dict[str, str]] = {
    tenant.split(".", depth)[depth]: tenant
    for tenant in sorted(MULTI_TENANT, reverse=True)
    for depth in range(1, tenant.count(".") + 1)
}
"""What lies above them, each with the first of them below it."""

_API_SERVERS: Final = re.compile(
    r"(?:hcp|privatelink)\.[a-z0-9]+\.(.+\.)?(azmk8s\.io|azk8s\.cn|containerservice\.azure\.us)"
)
_REGISTRY: Final = "acr"


def is_shared(suffix: str) -> bool:
    """Whether anybody can have a name below a suffix, or below what lies below it."""
    everybodys = suffix in MULTI_TENANT or is_public_suffix(suffix, private=True)
    return everybodys or suffix in _ABOVE or _API_SERVERS.fullmatch(suffix) is not None


def shared_suffix(name: str) -> str:
    """The suffix above a name below which any customer can have one, or an empty text."""
    _, _, above = name.partition(".")
    while above:
        is_private = is_public_suffix(above, private=True) and not is_public_suffix(above)
        if above in MULTI_TENANT or is_private:
            return above
        _, _, above = above.partition(".")
    return ""


def api_servers(name: str) -> str:
    """The suffix of a cluster's API server, below which every tenant has some; or an empty text."""
    _, _, suffix = name.partition(".")
    return suffix if _API_SERVERS.fullmatch(suffix) else ""


def name_findings(survey: Survey) -> Iterator[Finding]:
    """Of each allow rule in force, its lists included."""
    lists: dict[int, tuple[Pattern, ...]] = {}
    for _, rule in survey.in_force():
        if rule.action is Action.ALLOW:
            for pattern in rule.patterns:
                if (found := _of_pattern(rule, pattern, survey)) is not None:
                    yield found
            for names in rule.lists:
                if id(names.entries) not in lists:
                    lists[id(names.entries)] = _everybodys(names)
                if wide := lists[id(names.entries)]:
                    yield _of_list(rule, names, wide)
            if rule.requirement == _REGISTRY and any(not p.is_exact for p in rule.patterns):
                text, _, hint = load_catalog().requirement(_REGISTRY).warning.partition(". ")
                yield Finding.of(rule, Code.DEDICATED_SWITCH, text, hint.rstrip("."))


def _of_pattern(rule: Rule, pattern: Pattern, survey: Survey) -> Finding | None:
    suffix = pattern.suffix
    if pattern.is_exact:
        return None
    if _API_SERVERS.fullmatch(suffix):
        text = f"{pattern} is the API server of every tenant's cluster in the region"
        hint = "set api_server_fqdn to your cluster's own"
        return Finding.of(rule, Code.ALL_API_SERVERS, text, hint)
    if _is_everybodys(pattern):
        text = f"{pattern} is everybody's: any customer can have a name there"
        return Finding.of(rule, Code.MULTI_TENANT, text, _narrower(rule))
    if not pattern.prefix and suffix in _ABOVE:
        text = f"{pattern} covers {_ABOVE[suffix]} too, where any customer can have a name"
        return Finding.of(rule, Code.OVER_WIDE, text, "list the names that you use")
    # Who writes a requirement means its names as they are; and p*.suffix has no apex to miss.
    if not pattern.prefix and not rule.requirement and not survey.program.matcher.names(suffix):
        text = f"{pattern} does not cover {suffix}"
        return Finding.of(rule, Code.MISSING_APEX, text, f"add {suffix} if it is meant")
    return None


def _narrower(rule: Rule) -> str:
    if rule.requirement is None:
        return "list the names that you use"
    if rule.requirement == _REGISTRY:
        return "data_endpoint: dedicated (Premium) avoids it: see dedicated-switch first"
    return "write rules for your own names instead, or accept it here"


def _is_everybodys(pattern: Pattern) -> bool:
    suffix = pattern.suffix
    return suffix in MULTI_TENANT or is_public_suffix(suffix, private=True)


def _everybodys(names: NameList) -> tuple[Pattern, ...]:
    """The wildcards of a list that are wider than one organisation."""
    wild = (parse_pattern(entry) for entry in names.entries if "*" in entry)
    return tuple(one for one in wild if _is_everybodys(one) or one.suffix in _ABOVE)


def _of_list(rule: Rule, names: NameList, wide: tuple[Pattern, ...]) -> Finding:
    text = f"{names.path.name} has {named(wide)}: any customer can have names there"
    return Finding.of(rule, Code.MULTI_TENANT, text, "list the names that you use")
