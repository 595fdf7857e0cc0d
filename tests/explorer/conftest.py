"""One browser for all tests of the explorer."""

from collections.abc import Iterator

import pytest

from tests.report.browser import Tab, tab


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("browser")) as opened:
        yield opened
