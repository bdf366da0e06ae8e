"""What items ask to be measured, before anything is: networks, attacks, sources."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import lab_of
from sample_report import measurement

from saddlepoint.errors import InputError
from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.result import Accuracy, Share
from saddlepoint.paper import ITEMS, accuracy, adversaries, diagnostics, methods, transfer
from saddlepoint.paper.item import against
from saddlepoint.show.table import Table


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_nothing_is_loaded_to_say_what_is_needed(dataset: str) -> None:
    with lab_of(f"dataset={dataset}", "data_dir=nowhere") as lab:
        for item in ITEMS:
            assert item.networks(lab), item.name
        assert not {"data", "test_images"} & vars(lab).keys()
        assert lab.missing == []


def test_table_1_attacks_the_network_itself_its_copy_and_another_architecture() -> None:
    with lab_of("dataset=mnist") as lab:
        found = adversaries.needs(lab)
        wanted = {(attack, name) for name, attacks in lab.cfg.report.adversaries.items() for attack in attacks}
    assert found.keys() == wanted
    assert {each.network for measurements in found.values() for each in measurements} == {("wide", "pgd", 0)}
    sources = {name: each.source for (_, name), (each,) in found.items()}
    assert sources == {"A": None, "A_prime": ("wide", "pgd", 1), "B": ("architecture_b", "standard", 0)}


def test_every_seed_is_needed_but_for_the_source_itself() -> None:
    with lab_of("dataset=mnist", "seeds=3") as lab:
        found = adversaries.needs(lab)
        assert [each.network[2] for each in found["pgd", "A"]] == [0, 1, 2]
        assert [each.network[2] for each in found["pgd", "A_prime"]] == [0, 2]
        with pytest.raises(InputError, match="is no independent source for itself"):
            against(lab, [("wide", "pgd", 1)], "pgd", ("wide", "pgd", 1))


def test_figure_4_is_every_training_of_every_model() -> None:
    with lab_of("models=[simple,capacity2,wide]", "trainings=[fgsm,pgd]", "evaluation.attacks=[natural,cw]") as lab:
        found = accuracy.needs(lab)
    assert len(found) == 3 * 2
    (one,) = found["fgsm", "capacity2"]
    assert (one.network, one.source, one.checkpoint) == (("capacity2", "fgsm", 0), None, None)


def test_transfer_takes_its_examples_from_second_trainings() -> None:
    with lab_of("dataset=cifar10") as lab:
        found = transfer.needs(lab)
    (one,) = found["transfer_pgd", "standard simple", "pgd wide"]
    assert (one.network, one.source) == (("simple", "standard", 0), ("wide", "pgd", 1))
    (own,) = found["transfer_copy", "pgd wide", "copy fgsm"]
    assert (own.network, own.source) == (("wide", "pgd", 1), ("wide", "pgd", 0))
    (pair,) = found["angles", "fgsm", ""]
    assert (pair.network, pair.source) == (("wide", "fgsm", 0), ("wide", "fgsm", 1))


def test_transfer_is_compared_with_tables_3_to_5() -> None:
    with lab_of("dataset=cifar10") as lab:
        nothing: dict[tuple[str, str, str], list[object]] = {place: [] for place in transfer.needs(lab)}
        tables = {name: shown for name, shown in transfer.show(nothing, lab) if isinstance(shown, Table)}
    places = {name: [note.partition("paper: ")[2] for note in table.notes][-1] for name, table in tables.items()}
    expected = {"transfer_fgsm": "Table 3", "transfer_pgd": "Table 4", "white_box": "Table 5"}
    for name, place in expected.items():
        assert place in places[name], name
    assert tables["transfer_pgd"].rows[-1][-1] == "not run [64.2]"  # wide PGD on examples of its copy


class Fake:
    model: object


def test_only_the_networks_in_hand_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with lab_of() as lab:
        networks = {(lab.run("simple", "pgd", seed).directory.path, "last"): Fake() for seed in range(3)}
        monkeypatch.setattr(lab, "_subjects", networks)
        monkeypatch.setattr(lab, "subject", lambda *network: networks[lab.run(*network[:3]).directory.path, "last"])

        def make(lab: Lab, subject: Any, source: Any) -> int:
            subject.model = source.model = object()
            return sum(hasattr(each, "model") for each in networks.values())

        pairs = [(0, 1), (1, 2), (2, 0)]
        found = [lab.measure(Measurement(("simple", "pgd", a), make, ("simple", "pgd", b))) for a, b in pairs]
        assert found == [2, 2, 2]
        lab.release()
        assert not any(hasattr(each, "model") for each in networks.values())


def test_methods_are_seen_at_both_checkpoints() -> None:
    with lab_of() as lab:
        found = methods.needs(lab)
    assert {each.checkpoint for (_, column), (each,) in found.items() if column.endswith("best")} == {"best"}
    assert {each.checkpoint for (_, column), (each,) in found.items() if column.endswith("last")} == {"last"}


@pytest.mark.parametrize(("eps", "names"), [("4/16", ["0.5", "1", "1.5", "2"]), ("0.75", ["0.5", "1"])])
def test_diagnostics_try_no_eps_beyond_the_pixel_range(eps: str, names: list[str]) -> None:
    with lab_of(f"threat.eps={eps}") as lab:
        tried = [name for _, name in diagnostics.needs(lab) if name.startswith("eps_times_")]
    assert tried == [f"eps_times_{name}" for name in names] * 3


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("report.white_box=[fsgm]", "did you mean fgsm?"),
        ("report.transfer=[pgd,pgd_100]", "one FGSM and one PGD"),
        ("attacks.pgd_x20.restarts=1", "attacks.pgd_x20.restarts=1"),
        ("evaluation.attacks=[natural,pdg]", "did you mean pgd?"),
        ("landscape.attack=unknown", "unknown attack"),
        ("attacks.pgd_100.steps=0", "attack.steps=0"),
        ("report.epsilon.linf=[]", "report.epsilon.linf=[]; expected at least one eps"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(setting: str, named: str) -> None:
    with lab_of(setting) as lab, pytest.raises(InputError) as refused:
        for item in ITEMS:
            item.needs(lab)
    assert named in str(refused.value)


def test_diagnostics_vary_one_thing_at_a_time() -> None:
    with lab_of("report.diagnostics.steps=[5,40]", "report.diagnostics.factors=[0.5,2]") as lab:
        plain, found = lab.pgd("pgd"), diagnostics.variants(lab)
    described = {
        name: (each.threat.norm, each.threat.eps / plain.threat.eps, each.steps, each.alpha / plain.alpha)
        for name, each in found.items()
    }
    eps, step = plain.threat.eps, plain.alpha
    assert described == {
        "steps_5": ("linf", 1, 5, pytest.approx(2.5 * eps / 5 / step)),
        "steps_40": ("linf", 1, 40, pytest.approx(2.5 * eps / 40 / step)),
        "eps_times_0.5": ("linf", 0.5, plain.steps, 0.5),
        "eps_times_2": ("linf", 2, plain.steps, 2),
        "full_range": ("linf", 1 / eps, 100, pytest.approx(2.5 / 100 / step)),
    }
    assert found["eps_times_2"].describe()["step_size"] == str(2 * step)


def test_a_diagnosis_takes_each_number_from_its_measurement() -> None:
    def result(accuracy: float) -> Any:
        return measurement(Accuracy(accuracy, (accuracy - 0.03, accuracy + 0.01), "", 0.5))

    with lab_of("report.diagnostics.steps=[5,40]", "report.diagnostics.factors=[0.5,2]", "threat.eps=0.25") as lab:
        names = (
            "pgd",
            "pgd_x20",
            "steps_5",
            "steps_40",
            "eps_times_0.5",
            "eps_times_2",
            "full_range",
            "copy",
            "square",
        )
        found = {name: result((60 - number) / 100) for number, name in enumerate(names)}
        made = diagnostics.diagnose({**found, "zero": measurement(Share(0.01))}, lab)
    assert {check.name: dict(check.numbers) for check in made.checks} == {
        "more steps": {"steps 5": 0.58, "steps 40": 0.57},
        "more restarts": {"restarts 1": 0.6, "restarts 20": 0.59},
        "larger eps": {"eps 0.125": 0.56, "eps 0.5": 0.55},
        "eps is the pixel range": {"accuracy": 0.54},
        "black box": {"black box": 0.53, "white box": 0.6},
        "gradient-free attack": {"gradient-free": 0.52, "strongest white box": 0.59},
        "zero gradients": {"share": 0.01},
    }


def test_the_copy_is_measured_itself() -> None:
    with lab_of("dataset=cifar10") as lab:
        found = transfer.needs(lab)
    networks = {
        column: each.network
        for (part, row, column), (each,) in found.items()
        if (part, row) == ("transfer_copy", "pgd wide")
    }
    assert networks == {
        "natural": ("wide", "pgd", 0),
        "copy natural": ("wide", "pgd", 1),
        "fgsm": ("wide", "pgd", 0),
        "copy fgsm": ("wide", "pgd", 1),
        "pgd_7": ("wide", "pgd", 0),
        "copy pgd_7": ("wide", "pgd", 1),
    }
