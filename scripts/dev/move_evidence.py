"""Bring runs and reports of the layout before run.json into today's: python scripts/dev/move_evidence.py FOLDER

FOLDER is like outputs/reference. Nothing is measured: results are renamed after their keys and sealed, config.yaml
gains the settings that are new, run.json and report.json are written, and tables name the new files. It stops at any
other change.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from saddlepoint.files import digest, write_atomically, write_json
from saddlepoint.runs import Run

# Settings that a run of the earlier layout could not have.
NEW = ("recipe.grow", "recipe.averaging", "dataset.pgd.step_size_of_7", "trainer")


def changes(before: Any, after: Any, above: str = "") -> list[str]:
    """The settings that differ, by their full names."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            name
            for key in {**before, **after}
            for name in changes(before.get(key, ...), after.get(key, ...), f"{above}.{key}".lstrip("."))
        ]
    return [] if before == after else [above]


def variation(name: str) -> list[str]:
    """The overrides in a folder's name."""
    return [re.sub(r"=(\d+)_(\d+)$", r"=\1/\2", each) for each in name.split(",")[1:]]


def move_run(folder: Path) -> dict[str, str]:
    """Returns the new names of its results by the old ones, relative to the data set's folder."""
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    choices = [f"{group}={stored[group]['name']}" for group in ("dataset", "model", "training", "recipe")]
    run = Run.of([*choices, *variation(folder.parent.name), f"seed={stored['seed']}"])
    if run.name != folder.parent.name:
        raise SystemExit(f"{folder} would be called {run.name} today")
    defined = json.loads(json.dumps(run.definition))
    if "source_sha256" in stored["training"]:
        defined["training"]["source_sha256"] = stored["training"]["source_sha256"]
    odd = [name for name in changes(stored, defined) if not name.startswith(NEW)]
    if odd:
        raise SystemExit(f"{folder}/config.yaml differs from today's in {', '.join(odd)}")
    write_atomically(folder / "config.yaml", yaml.safe_dump(run.definition | defined, sort_keys=False).encode())
    write_json(folder / "run.json", {"overrides": run.overrides})
    moved = {}
    for path in sorted((folder / "results").glob("*.json")):
        result = json.loads(path.read_text())
        if "sha256" in result:
            continue
        key = result["key"]
        key["measurement"] = re.sub(r"-first\d+$", "", key["measurement"])
        new = path.with_name(f"{key['checkpoint']}-{key['measurement']}-{digest(key)}.json")
        if "arrays" in result:
            path.with_suffix(".npz").rename(new.with_suffix(".npz"))
            result["arrays"] = new.with_suffix(".npz").name
        write_json(new, {**result, "sha256": digest(result, 64)})
        path.unlink()
        moved[str(path.relative_to(folder.parents[1]))] = str(new.relative_to(folder.parents[1]))
    return moved


def move_report(folder: Path, moved: dict[str, str]) -> None:
    recipe = folder.name.split(",")[0].removeprefix("report").removeprefix("-")
    overrides = [f"dataset={folder.parent.name}", *([f"recipe={recipe}"] if recipe else []), *variation(folder.name)]
    write_json(folder / "report.json", {"overrides": overrides})
    for path in [*folder.rglob("*.json"), *folder.rglob("*.csv")]:
        text = path.read_text()
        new = re.sub(r"[\w.,=-]+/seed\d+/results/[\w.,=-]+?\.json", lambda found: moved.get(found[0], found[0]), text)
        write_atomically(path, new.encode())


def main() -> None:
    for dataset in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        runs = sorted(path.parent for path in dataset.glob("*/seed*/config.yaml"))
        moved = {old: new for folder in runs for old, new in move_run(folder).items()}
        for report in sorted(dataset.glob("report*")):
            move_report(report, moved)
        print(f"{dataset}: {len(runs)} runs, {len(moved)} results")


if __name__ == "__main__":
    main()
