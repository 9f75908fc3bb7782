"""What the doctor finds, on trees of the shapes that sysfs has."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from qat.checkup import FAILS, OK, WARNING, Finding, Host, check_all
from qat.health import check_health, fw_counters
from tests.support.emulated import emulator
from tests.support.harness import tool


class Tree:
    """A host in a folder."""

    def __init__(self, root: Path, kernel: str = "6.8.0-31-generic") -> None:
        self.root = root
        self.write("proc/sys/kernel/osrelease", kernel)
        self.write("proc/cmdline", "quiet intel_iommu=on")
        (root / "dev").mkdir()

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")

    def function(self, address: str, device: str, driver: str = "", **files: str) -> None:
        entry = f"sys/bus/pci/devices/{address}"
        self.write(f"{entry}/vendor", "0x8086")
        self.write(f"{entry}/device", device)
        for name, text in files.items():
            self.write(f"{entry}/{name.replace('__', '/')}", text)
        if driver:
            target = self.root / "sys/bus/pci/drivers" / driver
            target.mkdir(parents=True, exist_ok=True)
            (self.root / entry / "driver").symlink_to(target)

    def physical(
        self,
        device: str = "0x4940",
        driver: str = "4xxx",
        services: str = "dc",
        vfs: str = "16",
        bus: str = "6b",
    ) -> None:
        self.function(
            f"0000:{bus}:00.0",
            device,
            driver,
            qat__state="up",
            qat__cfg_services=services,
            sriov_numvfs=vfs,
            sriov_totalvfs="16",
        )

    def virtual(self, count: int = 16, device: str = "0x4941", driver: str = "vfio-pci") -> None:
        for number in range(count):
            self.function(f"0000:6b:{number // 8 + 1:02x}.{number % 8}", device, driver)
            (self.root / f"sys/kernel/iommu_groups/{number}").mkdir(parents=True)
            self.write(f"dev/vfio/{number}", "")
        self.write("dev/vfio/vfio", "")

    def configured(self, text: str = "ServicesEnabled=dc\nPOLICY=1") -> None:
        self.write("etc/sysconfig/qat", text)

    def found(self) -> dict[str, Finding]:
        findings = [*check_all(self.root), check_health(Host.at(self.root))]
        return {finding.check: finding for finding in findings}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def failing(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if finding.status == FAILS} - {"library"}


def healthy(tree: Tree) -> Tree:
    tree.physical()
    tree.virtual()
    tree.configured()
    return tree


def test_a_good_4xxx_host(tree: Tree) -> None:
    found = healthy(tree).found()
    assert failing(found) == set()
    assert found["services"].status == OK
    assert "16 worker processes" in found["policy"].read
    assert found["manager"].status == WARNING


def test_no_device(tree: Tree) -> None:
    found = tree.found()
    assert failing(found) == {"PCI devices"}
    assert found["PCI devices"].mend
    assert "no QAT device" in found["driver"].read


def test_420xx_needs_a_later_kernel(tmp_path: Path) -> None:
    old = Tree(tmp_path / "old", "6.1.0-18-amd64")
    old.physical("0x4946", "420xx")
    old.virtual(device="0x4947")
    old.configured()
    assert failing(old.found()) == {"kernel"}
    assert "6.8" in old.found()["kernel"].mend
    new = Tree(tmp_path / "new", "6.8.12")
    new.physical("0x4946", "420xx")
    new.virtual(device="0x4947")
    new.configured()
    assert failing(new.found()) == set()


def test_an_old_kernel_has_no_counters(tmp_path: Path) -> None:
    old = healthy(Tree(tmp_path / "old", "6.1.0-18-amd64"))
    assert old.found()["kernel"].status == WARNING
    older = healthy(Tree(tmp_path / "older", "5.10.0-8-amd64"))
    assert "kernel" in failing(older.found())


def test_c62x_is_not_driven_by_the_distributions(tree: Tree) -> None:
    tree.physical("0x37c8", "c6xx", services="")
    found = tree.found()
    assert found["generation"].status == FAILS
    assert "out-of-tree" in found["generation"].mend


def test_services_without_compression(tree: Tree) -> None:
    tree.physical(services="sym;asym")
    tree.virtual()
    found = tree.found()
    assert {"services", "policy"} <= failing(found)
    assert "sym;asym" in found["services"].read
    assert "ServicesEnabled=dc" in found["services"].mend


def test_only_some_devices_compress(tree: Tree) -> None:
    tree.physical(services="sym;asym")
    tree.physical(services="dc", bus="70")
    tree.virtual()
    tree.configured("POLICY=0")
    found = tree.found()
    assert found["services"].status == WARNING
    assert "16 worker" in found["policy"].read


def test_missing_virtual_functions(tree: Tree) -> None:
    tree.physical(vfs="0")
    tree.configured()
    found = tree.found()
    assert {"virtual functions", "access rights", "IOMMU"} <= failing(found)
    assert "systemctl start qat" in found["virtual functions"].mend


def test_a_device_without_a_driver_or_down(tree: Tree) -> None:
    tree.function("0000:6b:00.0", "0x4940")
    found = tree.found()
    assert {"driver", "state", "services"} <= failing(found)
    assert "modprobe qat_4xxx" in found["driver"].mend


def test_a_guest_with_virtual_functions(tree: Tree) -> None:
    tree.virtual(4)
    found = tree.found()
    assert failing(found) == set()
    assert "guest" in found["PCI devices"].read
    assert "4 worker processes" in found["policy"].read
    assert found["state"].read == "a matter of the host, not of this guest"


def test_virtual_functions_of_another_driver(tree: Tree) -> None:
    tree.virtual(4, driver="4xxxvf")
    assert "virtual functions" in failing(tree.found())


@pytest.mark.parametrize(
    ("policy", "words", "status"),
    [
        ("2", "8 worker", OK),
        ("0", "16 worker", OK),
        ("many", "not a number", FAILS),
        ("32", "0 worker", FAILS),
    ],
)
def test_policy_decides_how_many_workers(tree: Tree, policy: str, words: str, status: str) -> None:
    healthy(tree).configured(f"# POLICY=9\nServicesEnabled=dc\nPOLICY={policy}")
    found = tree.found()["policy"]
    assert words in found.read
    assert found.status == status


def test_the_manager_is_asked(tree: Tree) -> None:
    healthy(tree)
    path = tree.root / "run/qat/qatmgr.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert tree.found()["manager"].status == FAILS
        listening.listen()
        assert tree.found()["manager"].status == OK


def test_errors_that_were_counted(tree: Tree) -> None:
    healthy(tree)
    tree.write("sys/bus/pci/devices/0000:6b:00.0/qat_ras/errors_fatal", "2")
    tree.write("sys/kernel/debug/qat_4xxx_0000:6b:00.0/heartbeat/status", "-1")
    found = tree.found()["health"]
    assert found.status == FAILS
    assert "2 fatal" in found.read
    assert "heartbeat" in found.read


def test_firmware_counters(tree: Tree) -> None:
    assert fw_counters(tree.root) is None
    tree.write(
        "sys/kernel/debug/qat_4xxx_0000:6b:00.0/fw_counters",
        "+---+\n| Firmware Requests[AE 0]: | 7 |\n| Firmware Responses[AE 0]: | 5 |",
    )
    assert fw_counters(tree.root) is not None


def test_the_command_says_what_is_wrong_here() -> None:
    ended = tool("tools.doctor", environment={"QATZIP_LIBRARY": "/nowhere/libqatzip.so.3"})
    assert ended.returncode == 2
    assert "cannot compress on QAT" in ended.stdout
    assert "-> tools/get_qatzip.sh" in ended.stdout


def test_the_real_test_runs_on_the_device() -> None:
    with emulator() as (environment, _):
        ended = tool("tools.doctor", "--json", "-", environment=environment)
    document = json.loads(ended.stdout)
    real = document["findings"][-1]
    assert real["check"] == "real test"
    assert "SIMULATED" in real["read"]
    assert "total_in moved" in real["read"]


def test_a_device_that_lies_is_found() -> None:
    with emulator("--fault", "corrupt:1") as (environment, _):
        ended = tool("tools.doctor", "--json", "-", environment=environment)
    assert json.loads(ended.stdout)["findings"][-1]["status"] == FAILS


def test_a_recorded_tree_is_only_looked_at(tree: Tree) -> None:
    ended = tool("tools.doctor", "--root", str(healthy(tree).root))
    assert "recorded tree" in ended.stdout
    assert tool("tools.doctor", "--root", "/nowhere").returncode == 2
