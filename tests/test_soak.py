"""kill -9 at random moments, and the tools of the long soak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, load_script

from saddlepoint.threat import Threat


def test_six_kills_leave_what_an_undisturbed_run_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """make soak has two hundred, in bfloat16 too."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "dev"))  # the processes find it by name
    import soak

    told = soak.Kills(tmp_path, "float32", seed=0).run(6)
    assert sum(told["kills"].values()) == 6
    assert told["runs"] >= 1


def test_a_run_that_differs_is_noticed(tmp_path: Path) -> None:
    soak = load_script("scripts/dev/soak.py")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.csv").write_text(f"in {tmp_path / name}")
        (tmp_path / name / "last-pgd.json").write_text(f'{{"accuracy": 0.5, "seconds": {len(name)}}}')
    assert soak.left_by(tmp_path / "one") == soak.left_by(tmp_path / "other")
    for name, content in (
        ("last-pgd.json", '{"accuracy": 0.6}'),
        ("last-pgd.json", '{"accuracy": 0.5, "train_loss": 1}'),
        ("history.csv", "other"),
    ):
        before = (tmp_path / "one" / name).read_text()
        (tmp_path / "one" / name).write_text(content)
        assert soak.left_by(tmp_path / "one") != soak.left_by(tmp_path / "other")
        (tmp_path / "one" / name).write_text(before)


def test_examples_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    soak = load_script("scripts/dev/soak.py")
    told = soak.examples(5000)
    assert (told["verified"], told["outside"]) == (5000, 0)
    assert told["furthest_beyond_eps"] < 1e-6
    monkeypatch.setattr(Threat, "projection", lambda self, x: lambda x_adv: x_adv.clamp_(*self.bounds))
    assert soak.examples(5000)["outside"] > 0


@pytest.mark.parametrize(
    ("operator", "index", "expected"),
    [("negate", 0, [3, -3]), ("compare", 0, [3, 6]), ("compute", 1, [0, 6]), ("sign", 0, [2, 6]),
     ("constant", 0, [-2, -3]), ("constant", 1, [-2, 8])],
)  # fmt: skip
def test_a_deliberate_mistake_changes_one_place_of_one_function(operator: str, index: int, expected: list[int]) -> None:
    mutate = load_script("scripts/dev/mutation_check.py").mutate
    source = (
        "class A:\n    def f(self, x):\n        return x * 3 if x > 1 else -(x + 1)\n"
        "def f(x):\n    return x * 3 if x > 1 else -(x + 1)\n"
    )
    scope: dict[str, Any] = {}
    exec(mutate(source, "A.f", operator, index)[0], scope)
    assert [scope["A"]().f(x) for x in (1, 2)] == expected
    assert [scope["f"](x) for x in (1, 2)] == [-2, 6]
    for function, place, reason in (("A.g", 0, "no function A.g"), ("A.f", 9, "A.f has no place 9")):
        with pytest.raises(LookupError, match=reason):
            mutate(source, function, operator, place)
