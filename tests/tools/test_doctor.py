"""What the doctor finds, on trees of the shapes that sysfs has."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from qat.checkup import FAILS, OK, WARNING, Finding, Host, check_all
from qat.health import check_health, fw_counters
from qat.host import what_to_check
from qat.known_faults import check_known_faults
from qat.nodes import check_nodes
from qat.qatlib import Qatlib
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
            group = self.root / f"sys/kernel/iommu_groups/{number}"
            group.mkdir(parents=True)
            entry = f"sys/bus/pci/devices/0000:6b:{number // 8 + 1:02x}.{number % 8}"
            (self.root / entry / "iommu_group").symlink_to(group)
            self.write(f"dev/vfio/{number}", "")
        self.write("dev/vfio/vfio", "")

    def installed(self, version: str) -> None:
        other = "Package: libqat-dev\nStatus: install ok installed\nVersion: 1.2-3\n"
        record = f"Package: libqat4\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n"
        self.write("var/lib/dpkg/status", f"{other}\n{record}")

    def manager(self, seconds_ago: float) -> socket.socket:
        """qatmgr's socket, that long older than what else is in the tree."""
        path = self.root / "run/qat/qatmgr.sock"
        path.parent.mkdir(parents=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        at = path.stat().st_mtime - seconds_ago
        os.utime(path, (at, at))
        return listening

    def configured(self, text: str = "ServicesEnabled=dc\nPOLICY=1") -> None:
        self.write("etc/sysconfig/qat", text)

    def found(self) -> dict[str, Finding]:
        host = Host.at(self.root)
        more = [*check_known_faults(host), check_nodes(host), check_health(host)]
        findings = [*check_all(self.root), *more]
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


DEBIAN_12 = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.{}-1 (2025-08-01)"


@pytest.mark.parametrize(
    ("release", "build", "qatlib", "status"),
    [
        ("6.1.148", "#1 SMP", "25.08.0-1", FAILS),
        ("6.1.0-18-amd64", DEBIAN_12.format(76), "24.09.0-2", FAILS),
        ("6.1.0-40-amd64", DEBIAN_12.format(153), "25.08.0-1", None),
        ("6.1.149", "#1 SMP", "25.08.0-1", None),
        ("6.1.0-18-amd64", "#1 SMP", "25.08.0-1", WARNING),
        ("6.0.9", "#1 SMP", "25.08.0-1", WARNING),
        ("6.1.76", "#1 SMP", "24.02.0-1+b1", None),
        ("6.1.76", "#1 SMP", "26.02.0-1", None),
        ("6.8.0-31-generic", "#31-Ubuntu SMP", "25.08.0-1", None),
    ],
)
def test_old_kernels_and_two_releases_of_qatlib(
    tmp_path: Path, release: str, build: str, qatlib: str, status: str | None
) -> None:
    tree = healthy(Tree(tmp_path, release))
    tree.write("proc/sys/kernel/version", build)
    tree.installed(qatlib)
    fault = tree.found().get("QATE-106085")
    assert (fault.status if fault else None) == status
    assert fault is None or "6.1.149" in fault.mend


def test_old_kernels_drive_other_devices_than_4xxx(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "6.1.76")
    tree.physical("0x4944", "4xxx")
    tree.virtual(device="0x4945")
    tree.installed("25.08.0-1")
    assert "QATE-106085" not in tree.found()


@pytest.mark.parametrize(
    ("qatlib", "reserved", "fails"),
    [
        ("25.08.0-1", "512", True),
        ("26.02.0-1", "1", True),
        ("26.02.0-1", "0", False),
        ("26.08.0-1", "512", False),
        ("24.09.0-1", "512", False),
    ],
)
def test_hugepages_stop_two_releases(tree: Tree, qatlib: str, reserved: str, fails: bool) -> None:
    healthy(tree).installed(qatlib)
    tree.write("proc/sys/vm/nr_hugepages", "0")
    tree.write("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", reserved)
    assert ("QAT20-42018" in failing(tree.found())) == fails


@pytest.mark.parametrize(
    ("qatlib", "services", "warned"),
    [("25.08.0-1", "dc", True), ("25.08.0-1", "sym;dc", False), ("26.02.0-1", "dc", False)],
)
def test_compression_alone_before_26_02(tree: Tree, qatlib: str, services: str, warned: bool) -> None:
    tree.physical(services=services)
    tree.virtual()
    tree.installed(qatlib)
    fault = tree.found().get("QAT20-41747")
    assert (fault is not None) == warned
    if fault is not None:
        assert fault.status == WARNING
        assert "26.02" in fault.mend
        assert "sym;dc" in fault.mend


def test_the_setting_that_is_recommended_says_what_it_needs(tree: Tree) -> None:
    tree.physical(services="sym;asym")
    tree.installed("24.02.0-1+b1")
    recommending = ("services", "policy")
    assert all("QAT20-41747" in tree.found()[check].mend for check in recommending)
    tree.installed("26.02.0-1")
    assert not any("QAT20-41747" in tree.found()[check].mend for check in recommending)


def test_a_manager_older_than_the_configuration(tree: Tree) -> None:
    with healthy(tree).manager(seconds_ago=60):
        fault = tree.found()["QATE-76073"]
        assert fault.status == FAILS
        assert fault.mend == "systemctl restart qat"
        for path in (tree.root / "dev/vfio").iterdir():
            os.utime(path, (1, 1))
        (tree.root / "dev/vfio/99").write_text("")  # another device's group
        changed = tree.found()["QATE-76073"]
        assert changed.status == WARNING
        assert "etc/sysconfig/qat" in changed.read
        os.utime(tree.root / "etc/sysconfig/qat", (1, 1))
        assert "QATE-76073" not in tree.found()


def test_starting_at_once_without_a_manager(tree: Tree) -> None:
    healthy(tree).installed("25.08.0-1")
    assert tree.found()["QATE-105912"].status == WARNING
    assert "qatlib 25.08.0" in tree.found()["QATE-105912"].read
    tree.installed("26.08.0-1")
    assert "QATE-105912" not in tree.found()
    tree.installed("25.08.0-1")
    with tree.manager(seconds_ago=-60):
        assert "QATE-105912" not in tree.found()


@pytest.mark.parametrize(
    ("compiler", "version", "fails"),
    [
        ("GCC: (GNU) 16.1.0", "26.02.0", True),
        ("GCC: (GNU) 16.1.0", "26.08.0", False),
        ("GCC: (Debian 14.2.0-19) 14.2.0", "26.02.0", False),
    ],
)
def test_a_build_by_gcc_16(tree: Tree, compiler: str, version: str, fails: bool) -> None:
    healthy(tree)
    tree.write("usr/local/lib/pkgconfig/libqat.pc", f"Name: libqat\nVersion: {version}")
    (tree.root / "usr/local/lib/libqat.so.4").write_bytes(b"\x7fELF\0" + compiler.encode() + b"\0")
    assert ("QAT20-42511" in failing(tree.found())) == fails


def test_which_qatlib_is_installed(tree: Tree) -> None:
    assert Qatlib.of(tree.root).release is None
    tree.installed("24.02.0-1+b1")
    assert Qatlib.of(tree.root).release == (24, 2)
    tree.write("usr/local/lib64/pkgconfig/libqat.pc", "Name: libqat\nVersion: 26.08.0")
    assert Qatlib.of(tree.root).version == "26.08.0"
    tree.write(
        "var/lib/dpkg/status", "Package: libqat4\nStatus: deinstall ok config-files\nVersion: 24.02.0-1\n"
    )
    (tree.root / "usr/local/lib64/pkgconfig/libqat.pc").unlink()
    assert Qatlib.of(tree.root).release is None


def test_gen6_needs_the_latest_of_all(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "6.15.2")
    tree.physical("0x4948", "6xxx")
    tree.virtual(device="0x4949")
    tree.configured()
    tree.installed("26.02.0-1")
    assert failing(tree.found()) == {"generation"}
    assert "26.08" in tree.found()["generation"].mend
    tree.installed("26.08.0-1")
    assert failing(tree.found()) == set()
    tree.write("proc/sys/kernel/osrelease", "6.12.9")
    assert "6.15" in tree.found()["kernel"].mend


AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD"
ARM = "processor\t: 0\nCPU implementer\t: 0x41"


@pytest.mark.parametrize(("cpu", "iommu"), [(AMD, "AMD-Vi"), (ARM, "firmware")])
def test_beside_another_cpu_qat_is_a_card(tree: Tree, cpu: str, iommu: str) -> None:
    tree.write("proc/cpuinfo", cpu)
    found = tree.found()
    assert "card" in found["PCI devices"].read
    assert "8970" in found["PCI devices"].mend
    assert "BIOS" not in found["PCI devices"].mend
    assert iommu in found["IOMMU"].mend
    tree.physical("0x37c8", "c6xx", services="")
    carded = tree.found()
    assert "on a card" in carded["PCI devices"].read
    assert "c62x" in carded["PCI devices"].read
    assert carded["generation"].status == FAILS
    for finding in (*found.values(), *carded.values()):
        assert "intel_iommu" not in finding.read + finding.mend


def test_what_to_check_beside_another_cpu(tree: Tree) -> None:
    tree.write("proc/cpuinfo", AMD)
    places = (tree.root / "sys", tree.root / "dev", tree.root / "proc")
    assert "card" in what_to_check(*places)
    tree.physical()
    assert "intel_iommu" not in what_to_check(*places)
    tree.write("proc/cpuinfo", "vendor_id : GenuineIntel")
    assert "intel_iommu" in what_to_check(*places)


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


def nodes(tree: Tree, *cpus: str) -> None:
    for node, text in enumerate(cpus):
        tree.write(f"sys/devices/system/node/node{node}/cpulist", text)


def test_a_device_beside_some_cpus_only(tree: Tree) -> None:
    healthy(tree)
    tree.write("sys/bus/pci/devices/0000:6b:00.0/numa_node", "1")
    nodes(tree, "0-15,32-47", "16-31,48-63")
    found = tree.found()["nodes"]
    assert found.status == "warning" and found.read == "devices lie on node 1, CPUs on 0, 1"
    assert "--send-cpus 16-31,48-63 --numa 1" in found.mend


def test_a_device_on_each_node_or_one_node_only(tree: Tree) -> None:
    healthy(tree)
    tree.write("sys/bus/pci/devices/0000:6b:00.0/numa_node", "0")
    nodes(tree, "0-15")
    assert tree.found()["nodes"].status == "ok"
    tree.write("sys/bus/pci/devices/0000:6b:00.0/numa_node", "-1")
    nodes(tree, "0-15", "16-31")
    assert tree.found()["nodes"].status == "ok"


@pytest.mark.parametrize("policy", ["\u00b2", "9" * 5000, "one", "-1"])
def test_a_policy_that_is_no_number(tree: Tree, policy: str) -> None:
    healthy(tree)
    tree.configured(f"POLICY={policy}")
    assert tree.found()["policy"].status == "fails"


def test_a_policy_in_quotes_is_a_number(tree: Tree) -> None:
    healthy(tree)
    tree.configured('POLICY="1"')
    assert tree.found()["policy"].status == "ok"


def test_files_that_are_no_text_end_nothing(tree: Tree) -> None:
    healthy(tree)
    device = "sys/bus/pci/devices/0000:6b:00.0"
    for path in (f"{device}/qat/state", f"{device}/device", "proc/cpuinfo"):
        (tree.root / path).parent.mkdir(parents=True, exist_ok=True)
        (tree.root / path).write_bytes(b"\xff\xfe\n")
    assert "policy" in tree.found()
