"""A report to make pages of."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_report import write_report


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """outputs/mnist/report-fast; no test writes anything but index.html into it."""
    folder = tmp_path_factory.mktemp("page") / "outputs" / "mnist" / "report-fast"
    write_report(folder)
    return folder
