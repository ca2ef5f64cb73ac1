"""Every error of the document's shape and of its rules, with its place and hint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.policy.conftest import Finder, Loader

RULE = "rules:\n  - {to: [a.example.com], ports: [https], %s}\n"
TO = "rules:\n  - {to: [%s], ports: [%s]}\n"

# Named cases: text after the two lines of HEAD, and every problem it has.
CASES: dict[str, tuple[str, list[str]]] = {
    "unknown key": (
        "ruels: []\n",
        ["policy.yaml:3:1: unknown key 'ruels' in a policy, hint: did you mean rules?"],
    ),
    "unknown key of a rule": (
        RULE % "form: [10.0.0.0/8]",
        ["policy.yaml:4:43: unknown key 'form' in a rule, hint: did you mean from?"],
    ),
    "unknown key, nothing near": (
        "include:\n  - {file: a.yaml, zzz: 1}\n",
        [
            "policy.yaml:4:12: 'a.yaml' cannot be read: No such file or directory,"
            " hint: paths are relative to .",
            "policy.yaml:4:20: unknown key 'zzz' in an include, hint: the keys are file, from",
        ],
    ),
    "missing keys": (
        "rules:\n  - {name: x}\n",
        [
            "policy.yaml:4:5: a rule lacks the key 'to', hint: to: names, *.suffix,"
            " prefix*.suffix, list:file, tag:Name, or address ranges",
            "policy.yaml:4:5: a rule lacks the key 'ports', hint: ports: https, http, tls:P,"
            " http:P (by name), tcp:P[-Q], udp:P[-Q] (network)",
        ],
    ),
    "rules is no list": (
        "rules: {a: b}\n",
        [
            "policy.yaml:3:8: a list of rules is expected, not a mapping,"
            " hint: write a list: - item, or [item, item]"
        ],
    ),
    "a rule is a text": (
        "rules: [github.com]\n",
        [
            "policy.yaml:3:9: a rule is expected, not a single value, hint: write its keys: name,"
            " action, to, ports, from, until, mode, audit_until, destination, sni, ech, addresses,"
            " accept"
        ],
    ),
    "one item instead of a list": (
        "rules:\n  - to: '*.example.com'\n    ports: https\n",
        [
            "policy.yaml:4:9: a list of destinations is expected, not a single value,"
            ' hint: write ["*.example.com"]',
            "policy.yaml:5:12: a list of port items is expected, not a single value,"
            " hint: write [https]",
        ],
    ),
    "empty from is not everyone": (
        RULE % "from: []",
        ["policy.yaml:4:49: an empty list, hint: list at least one of sources, or remove the key"],
    ),
    "from without a value is not everyone": (
        RULE % "from: ",
        [
            "policy.yaml:4:49: a list of sources is expected, not nothing,"
            " hint: write a list: - item, or [item, item]"
        ],
    ),
    "boolean name": (
        RULE % "name: no",
        [
            "policy.yaml:4:49: no is read as a boolean by YAML, not as a rule's name,"
            ' hint: quote it: "no"'
        ],
    ),
    "date name": (
        RULE % "name: 2026-01-01",
        [
            "policy.yaml:4:49: 2026-01-01 is read as a date by YAML, not as a rule's name,"
            ' hint: quote it: "2026-01-01"'
        ],
    ),
    "empty name": (
        RULE % "name: ",
        ["policy.yaml:4:49: a rule's name is missing here, hint: give a value or remove the key"],
    ),
    "name is a list": (
        RULE % "name: [x]",
        ["policy.yaml:4:49: a rule's name is expected, not a list"],
    ),
    "name with a slash": (
        RULE % "name: a/b",
        [
            "policy.yaml:4:49: 'a/b' is not a rule's name,"
            " hint: letters, digits, spaces, '.', '_' and '-', 100 at most"
        ],
    ),
    "name used twice": (
        "rules:\n  - {name: x, to: [a.example.com], ports: [https]}\n"
        "  - {name: x, to: [b.example.com], ports: [https]}\n",
        [
            "policy.yaml:5:12: the rule name 'x' is used twice,"
            " hint: the first is on line 4: records need one name a rule"
        ],
    ),
    "action": (
        RULE % "action: alow",
        ["policy.yaml:4:51: alow is not an action, hint: did you mean allow?"],
    ),
    "action on": (
        RULE % "action: on",
        ["policy.yaml:4:51: on is not an action, hint: write allow or deny"],
    ),
    "a rule cannot enforce": (
        RULE % "mode: enforce",
        ["policy.yaml:4:49: enforce is not a rule's mode, hint: write audit"],
    ),
    "audit_until without audit": (
        RULE % "audit_until: 2026-12-31",
        ["policy.yaml:4:56: audit_until without audit, hint: add mode: audit"],
    ),
    "warn-on-new without its end": (
        "mode: warn-on-new\n",
        [
            "policy.yaml:3:7: warn-on-new without warn_until: it has to end, hint: add"
            " warn_until: 2026-12-31, its last day (UTC)"
        ],
    ),
    "warn_until and warn_window without warn-on-new": (
        "mode: audit\naudit_until: 2026-12-31\nwarn_until: 2026-12-31\nwarn_window: 7d\n",
        [
            "policy.yaml:5:13: warn_until without warn-on-new, hint: add mode: warn-on-new",
            "policy.yaml:6:14: warn_window without warn-on-new, hint: add mode: warn-on-new",
        ],
    ),
    "audit_until with warn-on-new": (
        "mode: warn-on-new\nwarn_until: 2026-12-31\naudit_until: 2026-12-31\n",
        ["policy.yaml:5:14: audit_until without audit, hint: add mode: audit"],
    ),
    "warn-on-new of a rule": (
        RULE % "mode: warn-on-new",
        ["policy.yaml:4:49: warn-on-new is not a rule's mode, hint: write audit"],
    ),
    **{
        f"a window of {text}": (
            f"mode: warn-on-new\nwarn_until: 2026-12-31\nwarn_window: {text}\n",
            [
                f"policy.yaml:5:14: '{text}' is not a span of hours or days, hint: write hours"
                " or days: 12h, 7d; at most 90d"
            ],
        )
        for text in (
            "0d",
            "91d",
            "9999h",
            "7 days",
            "1w",
            "-1d",
            "7D",
            "d",
            "12345h",
            "\N{ARABIC-INDIC DIGIT SEVEN}d",
        )
    },
    "audit_until without audit in the policy": (
        "mode: enforce\naudit_until: 2026-12-31\n",
        ["policy.yaml:4:14: audit_until without audit, hint: add mode: audit"],
    ),
    "no such day": (
        RULE % "until: 2026-02-30",
        [
            "policy.yaml:4:50: 2026-02-30 is not a date: day is out of range for month,"
            " hint: write 2026-12-31, the last day (UTC) on which it counts"
        ],
    ),
    "time of day": (
        RULE % "until: 2026-02-03T10:00:00Z",
        [
            "policy.yaml:4:50: 2026-02-03T10:00:00Z is not a date,"
            " hint: write 2026-12-31, the last day (UTC) on which it counts"
        ],
    ),
    "date is a list": (
        RULE % "until: [x]",
        [
            "policy.yaml:4:50: a list is not a date,"
            " hint: write 2026-12-31, the last day (UTC) on which it counts"
        ],
    ),
    "modes": (
        "mode: off\ndestination: strikt\nech: no\nrefusal: [drop]\non_reload: keeep\n",
        [
            "policy.yaml:3:7: off is not a mode, hint: write enforce or audit or warn-on-new",
            "policy.yaml:4:14: strikt is not a destination mode, hint: did you mean strict?",
            "policy.yaml:5:6: no is not an ECH mode, hint: write allow or refuse",
            "policy.yaml:6:10: a list is not a refusal, hint: write alert or reset or drop",
            "policy.yaml:7:12: keeep is not a reload mode, hint: did you mean keep?",
        ],
    ),
    "port 443": (
        TO % ("a.example.com", "443"),
        [
            "policy.yaml:4:35: 443 is read as a number by YAML, not as a port item,"
            " hint: write https"
        ],
    ),
    "port 8443": (
        TO % ("a.example.com", "8443"),
        [
            "policy.yaml:4:35: 8443 is read as a number by YAML, not as a port item,"
            " hint: write tls:8443, http:8443 or tcp:8443"
        ],
    ),
    "sexagesimal ports": (
        TO % ("a.example.com", "22:30"),
        [
            "policy.yaml:4:35: 22:30 is read as a number in base 60 by YAML, not as a port item,"
            " hint: write tcp:22-30"
        ],
    ),
    "quoted port": (
        TO % ("a.example.com", "'443'"),
        [
            "policy.yaml:4:35: '443' is not a port item,"
            " hint: write https, http, tls:8443, tcp:1433 or udp:123"
        ],
    ),
    "wildcard that is also evil": (
        TO % ("'*microsoft.com'", "https"),
        [
            "policy.yaml:4:11: '*microsoft.com' is not one of the three forms, hint: write"
            " *.microsoft.com (and microsoft.com for the apex): *microsoft.com would also match"
            " evilmicrosoft.com"
        ],
    ),
    "everything": (
        TO % ("'*', any", "https"),
        [
            f"policy.yaml:4:{column}: {text} would be everything, hint: name the destinations;"
            " by address it is 0.0.0.0/0 with tcp: or udp: ports"
            for column, text in ((11, "'*'"), (16, "'any'"))
        ],
    ),
    "URL": (
        TO % ("https://a.example.com/x", "https"),
        [
            "policy.yaml:4:11: 'https://a.example.com/x' is not a destination,"
            " hint: write the name only: a.example.com"
        ],
    ),
    "URL without a name": (
        TO % ("file:///x", "https"),
        [
            "policy.yaml:4:11: 'file:///x' is not a destination, hint: write the name only",
        ],
    ),
    "name and port": (
        TO % ("a.example.com:8443", "https"),
        [
            "policy.yaml:4:11: 'a.example.com:8443' is not a destination,"
            " hint: write a.example.com here and the port in ports: [tls:8443]"
        ],
    ),
    "path": (
        TO % ("a.example.com/x", "https"),
        [
            "policy.yaml:4:11: 'a.example.com/x' is not a destination,"
            " hint: a path cannot be judged without decryption: write a.example.com"
        ],
    ),
    "unknown schemes": (
        TO % ("'tga:Sql', 'x:y', 'tag:', 'list: x'", "https"),
        [
            "policy.yaml:4:11: 'tga:Sql' is not a destination, hint: did you mean tag?",
            "policy.yaml:4:22: 'x:y' is not a destination, hint: tag:, list:, a name, or a range",
            "policy.yaml:4:29: 'tag:' says no more than its kind,"
            " hint: write tag:Sql or tag:Sql.JapanEast",
            "policy.yaml:4:37: 'list: x' says no more than its kind, hint: write list:names.txt",
        ],
    ),
    "ranges": (
        TO
        % (
            "10.0.0.1/8, 10.0.0.1-10.0.0.4, 10.0.0.0-1.0.0.0, 1.2.3.999, '::ffff:1.2.3.4',"
            " '1.2.3.4-::1', '10.0.0.1-10.9.0.0'",
            "'tcp:1'",
        ),
        [
            "policy.yaml:4:11: '10.0.0.1/8' is not an address range,"
            " hint: host bits are set: write 10.0.0.0/8",
            "policy.yaml:4:23: '10.0.0.1-10.0.0.4' is not an address range,"
            " hint: write 10.0.0.1/32, 10.0.0.2/31, 10.0.0.4/32",
            "policy.yaml:4:42: '10.0.0.0-1.0.0.0' is not an address range,"
            " hint: a range is written as CIDR: 20.9.0.0/16",
            "policy.yaml:4:60: '1.2.3.999' is not an address range,"
            " hint: write 20.9.0.0/16, 20.1.2.3 or 2001:db8::/32",
            "policy.yaml:4:71: '::ffff:1.2.3.4' is IPv4 written as IPv6,"
            " hint: write the IPv4 range",
            "policy.yaml:4:89: '1.2.3.4-::1' is not an address range,"
            " hint: a range is written as CIDR: 20.9.0.0/16",
            "policy.yaml:4:104: '10.0.0.1-10.9.0.0' is not an address range,"
            " hint: a range is written as CIDR: 20.9.0.0/16",
        ],
    ),
    "address judged by name": (
        TO % ("20.9.0.0/16", "'tcp:1433', https"),
        [
            "policy.yaml:4:11: an address or tag with tls:443: tls and http are judged by name,"
            " hint: write tcp:443 to judge it by address, or names instead of addresses"
        ],
    ),
    "deny of a name on udp": (
        "rules:\n  - {action: deny, to: [a.example.com], ports: ['udp:123']}\n",
        [
            "policy.yaml:4:25: a deny of the name a.example.com on tcp or udp: only its addresses"
            " of the moment are known, hint: deny it with https or http, or deny its address"
            " ranges"
        ],
    ),
    "wildcard on tcp": (
        TO % ("'*.example.com'", "https, 'tcp:22'"),
        [
            "policy.yaml:4:11: *.example.com on tcp or udp: a wildcard has no addresses to"
            " resolve, hint: write exact names, or judge it by name with tls: or http: ports"
        ],
    ),
    "unknown source": (
        "sources: {build: [10.1.0.0/16]}\n" + RULE % "from: [biuld, lab]",
        [
            "policy.yaml:5:50: there is no source group 'biuld', hint: did you mean build?",
            "policy.yaml:5:57: there is no source group 'lab',"
            " hint: define it in sources:, or write a range",
        ],
    ),
    "source groups": (
        "sources: {a b: [10.0.0.0/8], build: 10.0.0.0/8, no: [10.0.0.0/8], x: [any]}\n",
        [
            "policy.yaml:3:11: 'a b' is not the name of a source group, hint: begin with a"
            " letter; letters, digits, '-', '_' and '.', 63 at most",
            "policy.yaml:3:37: a list of ranges is expected, not a single value,"
            " hint: write [10.0.0.0/8]",
            "policy.yaml:3:49: no is read as a boolean by YAML, not as a source group's name,"
            ' hint: quote it: "no"',
            "policy.yaml:3:71: 'any' is not an address range,"
            " hint: write 20.9.0.0/16, 20.1.2.3 or 2001:db8::/32",
        ],
    ),
    "sources is a list": (
        "sources: [10.0.0.0/8]\n",
        [
            "policy.yaml:3:10: a mapping of source groups is expected, not a list,"
            " hint: write  name: value"
        ],
    ),
    "addresses that cannot be listed": (
        RULE % "addresses: [169.254.169.254, 127.0.0.0/8, 168.63.129.16, 'fe80::/64', 10.1.0.0/16]",
        [
            f"policy.yaml:4:{column}: '{text}' cannot be listed: it has {why},"
            " hint: list the subnets of your private endpoints, such as 10.50.0.0/24"
            for column, text, why in (
                (
                    55,
                    "169.254.169.254",
                    "169.254.0.0/16, link-local (the instance metadata service)",
                ),
                (72, "127.0.0.0/8", "127.0.0.0/8, loopback"),
                (85, "168.63.129.16", "168.63.129.16/32, the Azure host (wire server)"),
                (100, "fe80::/64", "fe80::/10, link-local"),
            )
        ],
    ),
    "tag without a tag file": (
        TO % ("'tag:Sql'", "'tcp:1433'"),
        [
            "policy.yaml:4:11: this is the service tag Sql, and the policy names no service tag"
            " file, hint: add service_tags: ServiceTags_Public.json, Microsoft's weekly file,"
            " unmodified"
        ],
    ),
    "requirement is a list": (
        "requirements: [[aks/core]]\n",
        ["policy.yaml:3:16: a requirement's id is expected, not a list"],
    ),
    "requirement options on the wrong step": (
        "requirements:\n  - mcr:\n    from: [10.0.0.0/8]\n",
        [
            "policy.yaml:4:5: a requirement is one id with its options below it, hint: indent its"
            " options one step deeper than its id: - acr: {registry: …}"
        ],
    ),
    "requirement options are a text": (
        "requirements:\n  - mcr: now\n",
        [
            "policy.yaml:4:10: the options of mcr are expected, not a single value,"
            " hint: write - mcr: {from: [cluster-a]}"
        ],
    ),
    "requirement that is no text": (
        "requirements: [no, mcr: {regions: {a: b}, from: []}]\n",
        [
            "policy.yaml:3:16: no is read as a boolean by YAML, not as a text,"
            ' hint: quote it: "no"',
            "policy.yaml:3:35: a text is expected, not a mapping",
            "policy.yaml:3:49: an empty list,"
            " hint: list at least one of sources, or remove the key",
        ],
    ),
    "parameter with a list": (
        "parameters: {regions: [eastus, no]}\n",
        ['policy.yaml:3:32: no is read as a boolean by YAML, not as a text, hint: quote it: "no"'],
    ),
    "empty path": (
        "service_tags: ''\n",
        ["policy.yaml:3:15: an empty path, hint: write the file's path, relative to this file"],
    ),
    "unknown parameter": (
        "parameters: {locaton: japaneast, zzz: x}\n",
        [
            "policy.yaml:3:14: there is no parameter 'locaton', hint: did you mean location?",
            "policy.yaml:3:34: there is no parameter 'zzz', hint: there are location,"
            " api_server_fqdn, private_cluster, api_server_ips, region_cidrs, dns_servers,"
            " registry, regions, data_endpoint, regional_endpoints",
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_problems(problems: Finder, text: str, expected: list[str]) -> None:
    found = [one.replace("relative to /", "relative to ./") for one in problems(text)]
    assert [one.partition(", hint: paths")[0] for one in found] == [
        one.partition(", hint: paths")[0] for one in expected
    ]


HEADS = {
    "no version and cloud": (
        "rules: []\n",
        [
            "policy.yaml:1:1: a policy lacks the key 'version',"
            " hint: version: the document's version: 1",
            "policy.yaml:1:1: a policy lacks the key 'cloud',"
            " hint: cloud: AzureCloud, AzureChinaCloud or AzureUSGovernment",
        ],
    ),
    "version and cloud": (
        "version: '1'\ncloud: azurecloud\n",
        [
            "policy.yaml:1:10: 1 is not a version of the policy document,"
            " hint: write 1 without quotes",
            "policy.yaml:2:8: 'azurecloud' is not a cloud, hint: did you mean AzureCloud?",
        ],
    ),
    "version 2, cloud far off": (
        "version: 2\ncloud: amazon\n",
        [
            "policy.yaml:1:10: 2 is not a version of the policy document, hint: write 1",
            "policy.yaml:2:8: 'amazon' is not a cloud,"
            " hint: write AzureCloud, AzureChinaCloud, AzureUSGovernment",
        ],
    ),
    "requirement of no known cloud": (
        "version: 1\ncloud: x\nrequirements: [aks/cor, mcr]\n",
        [
            "policy.yaml:2:8: 'x' is not a cloud,"
            " hint: write AzureCloud, AzureChinaCloud, AzureUSGovernment",
            "policy.yaml:3:16: aks/cor: there is no requirement 'aks/cor',"
            " hint: did you mean aks/core or aks/istio?",
        ],
    ),
    "a list": (
        "- version: 1\n",
        [
            "policy.yaml:1:1: a policy is expected, not a list, hint: write its keys: version,"
            " parameters, sources, requirements, rules, include, cloud, mode, audit_until,"
            " warn_until, warn_window, destination, ech, refusal, on_reload, accept, service_tags"
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), HEADS.values(), ids=HEADS)
def test_problems_of_the_head(problems: Finder, text: str, expected: list[str]) -> None:
    assert problems(text, head="") == expected


EMPTY = ("rules:", "rules: []", "requirements: ~", "include: null", "sources:", "parameters:")


@pytest.mark.parametrize("text", EMPTY)
def test_what_is_commented_out_is_empty(load: Loader, text: str) -> None:
    assert load(text).rules == ()
