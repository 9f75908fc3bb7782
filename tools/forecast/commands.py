"""What to type for a method: to QEMU by itself, to libvirt, to the relay, to our own run."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pipeline.forecast.bands import Forecast, best
from pipeline.forecast.by_qemu import OF_QEMU, kept_bytes_per_second
from pipeline.forecast.situation import Plan
from tools.forecast.advice import channels_words
from tools.forecast.sources.seen import Typed

NO_LIMIT_BYTES = 12_500_000_000
"""QEMU's `max-bandwidth` is 128 MiB/s unless it is set: 100 Gbit/s is as good as none."""

Block = tuple[str, list[str]]
"""A title, and lines to type."""


def commands(found: list[Forecast], typed: Typed, plan: Plan) -> list[Block]:
    """For the best of these, and for the best that QEMU does by itself."""
    chosen = best(found)
    if not typed.is_vm:
        return [_run(chosen, typed, plan), _two_hosts(chosen, typed, plan)]
    own = [one for one in found if one.method in OF_QEMU]
    relayed = [one for one in found if one.method not in OF_QEMU]
    # QEMU's methods were forecast above a limit that the relay would keep to.
    blocks = [_relay(best(relayed) if relayed and plan.qemu_limit_bytes_per_second else chosen, plan)]
    if own:
        by_itself = best(own)
        blocks = [_qmp(by_itself, plan), _libvirt(by_itself, typed, plan), *blocks]
    return blocks


def _how(one: Forecast) -> str:
    return one.method + ("" if one.level is None else f":{one.level}")


def _words(one: Forecast) -> str:
    return f"{one.name}, {channels_words(one.channels)}"


def _limits(one: Forecast, plan: Plan) -> str:
    link = int(plan.link_bytes_per_second)
    bandwidth = f" --max-bandwidth {link}" if link else ""
    throttle = "" if one.chance_to_converge else " --converge throttle"
    return f"{bandwidth} --downtime-limit {plan.policy.downtime_limit_ms:g}{throttle}"


def _run(one: Forecast, typed: Typed, plan: Plan) -> Block:
    words = f"{typed.run_options} --prealloc --method {_how(one)} --channels {one.channels}"
    return f"On this host ({_words(one)})", [f"python -m pipeline.run {words.strip()}{_limits(one, plan)}"]


def _two_hosts(one: Forecast, typed: Typed, plan: Plan) -> Block:
    words = f"{typed.run_options} --method {_how(one)} --channels {one.channels}{_limits(one, plan)}"
    return "To another host (docs/two-hosts.md; the destination first)", [
        "python -m pipeline.recv --listen DESTINATION:7000 --tls-dir certs --prealloc",
        f"python -m pipeline.send --to DESTINATION:7000 --tls-dir certs {words.strip()}",
    ]


def _relay(one: Forecast, plan: Plan) -> Block:
    link = int(kept_bytes_per_second(plan))
    bandwidth = f" --max-bandwidth {link}" if link else ""
    return f"Through the relay, with {_words(one)} (docs/relay.md; the destination first)", [
        "python -m pipeline.relay --accept DESTINATION:7000 --tls-dir certs --deliver unix:in.sock "
        "--qmp D.sock",
        "python -m pipeline.relay --listen unix:out.sock --to DESTINATION:7000 --tls-dir certs --qmp S.sock "
        f"--migrate --multifd {one.channels} --channels {one.channels} --method {_how(one)}{bandwidth}",
    ]


def _qmp(one: Forecast, plan: Plan) -> Block:
    names = ["multifd", "return-path", *([] if one.chance_to_converge else ["auto-converge"])]
    capabilities = [{"capability": name, "state": True} for name in names]
    parameters: dict[str, Any] = {"multifd-channels": one.channels, "multifd-compression": one.method}
    if one.level is not None:
        parameters[f"multifd-{one.method}-level"] = one.level
    of_source = {
        "max-bandwidth": int(kept_bytes_per_second(plan)) or NO_LIMIT_BYTES,
        "downtime-limit": round(plan.policy.downtime_limit_ms),
    }
    return f"QEMU by itself, with {_words(one)}: QMP, at both sides and then at the source", [
        "# both sides; the destination was started with -incoming defer",
        _command("migrate-set-capabilities", capabilities=capabilities),
        _command("migrate-set-parameters", **parameters),
        "# the destination",
        _command("migrate-incoming", uri="tcp:0.0.0.0:4444"),
        "# the source",
        _command("migrate-set-parameters", **of_source),
        _command("migrate", uri="tcp:DESTINATION:4444"),
    ]


def _command(name: str, **arguments: Any) -> str:
    return json.dumps({"execute": name, "arguments": arguments})


def _libvirt(one: Forecast, typed: Typed, plan: Plan) -> Block:
    virsh = "virsh" + ("" if typed.uri is None else f" -c {shlex.quote(typed.uri)}")
    domain = shlex.quote(typed.domain)
    level = "" if one.level is None else f" --comp-{one.method}-level {one.level}"
    compressed = "" if one.method == "none" else f" --compressed --comp-methods {one.method}{level}"
    throttle = "" if one.chance_to_converge else " --auto-converge"
    mib = -(-(int(kept_bytes_per_second(plan)) or NO_LIMIT_BYTES) // (1 << 20))
    needs = "" if one.method == "none" else "; multifd compression needs libvirt 9.4"
    return f"libvirt, with {_words(one)}{needs}", [
        f"{virsh} migrate --live --parallel --parallel-connections {one.channels}{compressed}{throttle} "
        f"--bandwidth {mib} {domain} qemu+ssh://DESTINATION/system",
        "# while it runs, from another shell",
        f"{virsh} migrate-setmaxdowntime {domain} {round(plan.policy.downtime_limit_ms)}",
    ]
