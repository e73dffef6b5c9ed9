"""Cells: measured once, and anew when anything that decides them changes."""

from pathlib import Path

from mmjax.evaluate import cells
from mmjax.evaluate.cells import cell_path, keep


def test_a_cell_is_made_once(tmp_path: Path) -> None:
    told: list[str] = []
    cell = tmp_path / "deep" / "cell.json"

    def make() -> list[dict[str, float]]:
        return [{"a": 0.5}]

    assert keep(cell, make, lambda: told.append("made")) == [{"a": 0.5}]
    assert keep(cell, lambda: [], lambda: told.append("again")) == [{"a": 0.5}]
    assert told == ["made"]


def test_a_cell_belongs_to_settings_name_and_code(tmp_path: Path, monkeypatch) -> None:
    one = cell_path(tmp_path, {"rate": 0.1}, "BadNets, 2 %", 0.006, 1)
    assert one.name == "badnets-2-0-006-1.json"
    assert one == cell_path(tmp_path, {"rate": 0.1}, "BadNets, 2 %", 0.006, 1)
    assert one.parent != cell_path(tmp_path, {"rate": 0.2}, "BadNets, 2 %", 0.006, 1).parent
    monkeypatch.setattr(cells, "code_hash", lambda packages: "other")
    assert one.parent != cell_path(tmp_path, {"rate": 0.1}, "BadNets, 2 %", 0.006, 1).parent
