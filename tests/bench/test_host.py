"""Files as Linux shows them, and as they are missing elsewhere."""

from bench import host


def test_cpu_name_is_the_first_model(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: AMD EPYC 9354\nprocessor\t: 1\nmodel name\t: B\n"
    )
    assert host.cpu_name(info) == "AMD EPYC 9354"


def test_cpu_name_is_never_empty(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t:\n")
    assert host.cpu_name(info)
    assert host.cpu_name(tmp_path / "absent")


def test_governor_is_unknown_where_the_system_hides_it(tmp_path):
    file = tmp_path / "scaling_governor"
    file.write_text("powersave\n")
    assert host.cpu_governor(file) == "powersave"
    assert host.cpu_governor(tmp_path / "absent") is None


def supply(folder, name, **files):
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text + "\n")


def test_only_a_draining_battery_counts_as_battery(tmp_path):
    supply(tmp_path, "AC", type="Mains", online="1")
    assert host.on_battery(tmp_path) is None
    supply(tmp_path, "BAT0", type="Battery", status="Full")
    assert host.on_battery(tmp_path) is False
    supply(tmp_path, "BAT1", type="Battery", status="Discharging")
    assert host.on_battery(tmp_path) is True


def test_a_machine_without_power_supplies_has_no_battery(tmp_path):
    assert host.on_battery(tmp_path / "absent") is None


def test_sizes_of_this_machine_are_plausible():
    assert host.num_cores() >= 1
    assert host.memory_mib() is None or 256 < host.memory_mib() < 2**30
    assert host.load_average() is None or host.load_average() >= 0
