from pathlib import Path

from bench.soak.samples import Held, held, metrics, private_octets, roles

SMAPS = """\
7f00-7fff ---p 00000000 00:00 0 [rollup]
Rss:              100 kB
Private_Clean:      8 kB
Private_Dirty:     40 kB
Private_Hugetlb:    0 kB
"""
METRICS = """\
# TYPE egressproxy_denies counter
egressproxy_denies_total{plane="tls",reason="revoked"} 3.0
egressproxy_denies_total{plane="http",reason="revoked"} 1.0
egressproxy_denies_total{plane="tls",reason="default_deny"} 5.0
"""


def test_private_memory_is_clean_and_dirty_pages() -> None:
    assert private_octets(SMAPS) == 48 * 1024


def test_metrics_are_added_up_in_all_and_by_reason() -> None:
    assert metrics(METRICS) == {
        "egressproxy_denies_total": 9,
        "egressproxy_denies_total revoked": 4,
        "egressproxy_denies_total default_deny": 5,
    }


def test_processes_are_told_by_their_command_lines(tmp_path: Path) -> None:
    modules = {
        10: "egressproxy",
        12: "egressproxy.service.recorder",
        13: "egressproxy.service.worker",
        14: "egressproxy.service.worker",
    }
    for pid, module in modules.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text(f"python\0-m\0{module}\x003\x0010\0")
    assert roles(modules, tmp_path) == {
        "supervisor": 10,
        "recorder": 12,
        "worker 1": 13,
        "worker 2": 14,
    }


def test_what_a_process_holds(tmp_path: Path) -> None:
    own = tmp_path / "10"
    (own / "fd").mkdir(parents=True)
    (own / "status").write_text("Name:\tpython\nThreads:\t4\n")
    (own / "smaps_rollup").write_text(SMAPS)
    for number, target in enumerate(("socket:[1]", "pipe:[2]", "pipe:[2]", "/dev/null")):
        (own / "fd" / str(number)).symlink_to(target)
    before = held(10, tmp_path / "probes", tmp_path)
    assert before == Held(memory=48 * 1024, files=2, pipes=2, threads=4, tasks=0, blocks=0)
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "10").write_text("17 123456")
    after = held(10, tmp_path / "probes", tmp_path)
    assert (after.tasks, after.blocks) == (17, 123456)
