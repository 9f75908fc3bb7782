"""Command lines: what they mean, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import recv, run, send
from pipeline.cli.channels import MethodChoice
from pipeline.errors import UsageError
from pipeline.options import Options
from pipeline.policy import PolicySettings
from tests.support.harness import in_process, read


def one(*arguments: str) -> Options:
    (options,) = read(run, *arguments).runs
    assert isinstance(options, Options)
    return options


def test_methods_in_turn() -> None:
    request = read(run, "--method", "none,zstd:3, qatzip,auto,lz4:-15")
    assert [(o.method, o.level) for o in request.runs] == [
        ("none", None),
        ("zstd", 3),
        ("qatzip", 1),
        ("auto", None),
        ("lz4", -15),
    ]
    assert len({(o.guest, o.channels, o.max_bandwidth) for o in request.runs}) == 1


def test_a_method_without_a_list_is_as_before() -> None:
    assert (one("--method", "zstd", "--level", "7").level, one("--method", "zstd:7").level) == (7, 7)
    assert (one().method, one().level) == ("auto", None)
    assert MethodChoice("zlib", None).resolved_level == 1


def test_defaults_are_those_of_the_dataclasses() -> None:
    options = one()
    assert options.policy == PolicySettings()
    assert options.reconnect_seconds == Options.reconnect_seconds == 30.0
    assert (options.channels, options.receivers, options.queue_depth) == (2, 2, 12)


def test_what_was_given_reaches_the_options() -> None:
    options = one("--transport", "tcp", "--insecure", "--reconnect", "7")
    assert options.insecure is True
    assert options.reconnect_seconds == 7.0
    assert one("--method", "qatzip", "--no-qat-fallback").qat.fallback is False
    assert one("--max-bandwidth", "1M").max_bandwidth == 1 << 20
    assert read(send, "--to", "127.0.0.1:7", "--insecure").to.port == 7
    assert read(recv, "--listen", "unix:/tmp/x", "--max-size", "1G").receive.ram_bytes_max == 1 << 30


REFUSED = [
    (("--policy", "ferry"), "is now called guest-rate"),
    (("--reconnect", "abc"), "--reconnect: is for --transport tcp"),
    (("--insecure",), "--insecure: is for --transport tcp"),
    (("--method", "zstd", "--no-qat-fallback"), "--no-qat-fallback: is for --method qatzip"),
    (("--method", "none,zstd", "--qat-buffer", "64K"), "--qat-buffer: is for --method qatzip"),
    (("--method", "zstd", "--qat-decode", "hardware"), "--qat-decode hardware: is for --method qatzip"),
    (("--throttle-max", "50"), "is for --converge throttle"),
    (("--downtime-max", "500"), "is for --converge downtime-ramp"),
    (("--policy", "qemu", "--converge", "downtime-ramp"), "is for --policy guest-rate"),
    (("--method", "none,zstd", "--level", "3"), "is for a single --method"),
    (("--method", "zstd:3", "--level", "3"), "--method zstd:3 says the level already"),
    (("--method", "none:1"), "method none has no levels"),
    (("--method", "auto:1"), "chooses levels itself"),
    (("--method", "zstd:"), "a level must follow"),
    (("--method", "zstd,"), "--method 'zstd,': a name is missing"),
    (("--method", ""), "--method '': a name is missing"),
    (("--method", "zstd,zstd:1"), "--method zstd: stands in the list twice"),
    (("--method", "zstd:0"), "is the library's own default; write 3"),
    (("--method", "lz4", "--level", "0"), "is the library's own default; write 1"),
    (("--max-bandwidth", "1Gb"), "bits or bytes?"),
    (("--size", "64Mb"), "not a size"),
    (
        ("--converge", "throttle", "--throttle-initial", "99", "--throttle-max", "10"),
        "--throttle-initial 99: must be at most --throttle-max, 10",
    ),
    (("--method", "zstd:99"), "takes -50 to 22"),
    (("--method", "zstd:x"), "not a whole number"),
    (("--verify", "images", "--no-verify"), "either this or --no-verify"),
    (("--image", "x", "--fill", "y"), "a RAM image is used as it is"),
    (("--preset", "build", "--phases", "x"), "--preset is a whole workload; leave out --phases"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_an_option_that_does_not_apply_is_refused(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(run, *arguments)
    assert words in str(raised.value)


def test_a_list_may_hold_one_method_that_uses_the_device() -> None:
    request = read(run, "--method", "none,qatzip", "--qat-buffer", "32K")
    assert all(options.qat.buffer_bytes == 32 << 10 for options in request.runs)


def test_send_takes_one_method() -> None:
    with pytest.raises(UsageError, match="name one"):
        read(send, "--to", "unix:/tmp/x", "--method", "none,zstd")


@pytest.mark.parametrize(
    "module", ["pipeline.cli.run", "pipeline.cli.send", "pipeline.cli.recv", "tools.doctor"]
)
def test_every_command_has_a_version(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        in_process(module, "--version")
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("ramferry 0.")


def test_a_command_line_is_only_read(tmp_path: Path) -> None:
    """What was given is not changed by being read: the same line means the same twice."""
    given = run.build_parser("test").read(["--verify", "invariant", "--json", str(tmp_path / "x")])
    assert run.read(given) == run.read(given)
