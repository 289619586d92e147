"""The page has a place for what each big suite writes, hours after it began."""

from pathlib import Path

import pytest

from tests.faults.page import PAGE, rewrite


@pytest.mark.parametrize("name", ["simulation", "mutants", "programme"])
def test_the_page_has_a_place_for_each_suite(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text())
    rewrite(name, "what was seen", copy)
    once = copy.read_text()
    assert f"<!-- {name} -->\nwhat was seen\n<!-- /{name} -->\n" in once
    rewrite(name, "what was seen", copy)
    assert copy.read_text() == once


def test_a_page_without_the_place_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="<!-- simulation -->"):
        rewrite("simulation", "what was seen", page)
    assert page.read_text() == "nothing here"
