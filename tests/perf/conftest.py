"""This folder measures, and so it is collected only where it is named: `pytest tests/perf`."""

from pathlib import Path

HERE = Path(__file__).parent


def pytest_ignore_collect(config):
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True
