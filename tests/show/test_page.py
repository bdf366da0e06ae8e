from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from command_line import ROOT, Run, refused
from sample_report import PLANTED, accuracy, curves, filters, histograms

from saddlepoint.errors import InputError
from saddlepoint.files import read_json, write_json
from saddlepoint.paper import SECTIONS
from saddlepoint.show import page
from saddlepoint.show.plots import figure


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of each script, section and cell."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: dict[str, str] = {}  # by section
        self.section, self.in_script = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.in_script = tag == "script"
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts[-1] += data
        else:
            self.text[self.section] = self.text.get(self.section, "") + data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    def links(self) -> list[str]:
        return [attributes["href"] or "" for tag, attributes in self.elements if tag == "a"]


@pytest.fixture(scope="module")
def made(report: Path) -> Page:
    return Page(page.render(report, SECTIONS))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "digits" / "report"
    write_json(folder / "report.json", {"overrides": ["dataset=digits"]})
    return folder


def test_every_item_has_a_section_in_its_order_and_a_line_in_the_contents(made: Page) -> None:
    sections = [attributes["id"] for tag, attributes in made.elements if tag == "section"]
    assert sections == [*(item.anchor for item in SECTIONS), "something_else"]
    assert [link for link in made.links() if link.startswith("#")][: len(sections)] == [f"#{name}" for name in sections]
    for item in SECTIONS:
        assert item.title in made.text[item.anchor] and item.claim in made.text[item.anchor]


def test_ids_are_unique_and_links_within_the_page_lead_somewhere(made: Page) -> None:
    assert len(set(made.ids())) == len(made.ids())
    assert {link[1:] for link in made.links() if link.startswith("#")} <= set(made.ids())
    controlled = {attributes["aria-controls"] for tag, attributes in made.elements if tag == "button"}
    assert controlled <= set(made.ids())


def test_what_is_missing_is_shown_with_its_command(report: Path, made: Page) -> None:
    command = f"scripts/adversaries_table.py dataset=mnist recipe=fast output_dir={report.parents[1]}"
    said = re.sub(r"\s+", " ", made.text["adversaries"])
    assert f"Missing: tables/adversaries.json. python {command} makes it." in said
    assert "Missing" in made.text["transfer_fgsm"] and "transfer_pgd.json" not in made.text["transfer_fgsm"]
    assert "Missing" not in made.text["loss_trajectories"]


def test_an_empty_report_is_all_missing(empty: Path) -> None:
    made = Page(page.render(empty, SECTIONS))
    names = [f"{part}.json" for section in SECTIONS for part in section.parts]
    text = " ".join(made.text.values())
    assert len(names) == len(set(names)) >= 21
    assert all(f"Missing: {name}." in text for name in names)
    assert "No accuracy has been measured yet" in text
    assert f"scripts/loss_histograms.py dataset=digits output_dir={empty.parents[1]} makes it" in re.sub(
        r"\s+", " ", text
    )


def test_a_tables_command_is_of_its_script_whoever_measured_it_first(report: Path) -> None:
    """Two tables share results, which name the command that measured them."""
    path, script = report / "tables" / "accuracy.json", "python scripts/accuracy_table.py"
    own = page._table(path, read_json(path), f"{script} dataset=mnist")["commands"]
    assert own and all(each.startswith(script) for each in own)
    shared = json.loads(path.read_text().replace(script, "python scripts/transfer_tables.py"))
    assert page._table(path, shared, f"{script} dataset=mnist")["commands"] == [f"{script} dataset=mnist"]


@pytest.mark.parametrize("script", sorted({item.arguments[0] for item in SECTIONS}))
def test_the_scripts_exist(script: str) -> None:
    assert (ROOT / "scripts" / f"{script}.py").exists()


@pytest.mark.parametrize(
    ("overrides", "command"),
    [
        ([], ""),
        (["dataset=mnist", "recipe=fast"], "dataset=mnist recipe=fast "),
        (["threat.eps=4/255", "models=[wide]"], "threat.eps=4/255 'models=[wide]' "),
        (["+monitor.examples=9", "~attack.loss"], "+monitor.examples=9 '~attack.loss' "),
        (["training.select=natural", "output_dir=elsewhere"], "++training.select=natural "),
    ],
)
def test_commands_have_the_settings_of_the_report_and_its_place(
    tmp_path: Path, overrides: list[str], command: str
) -> None:
    folder = tmp_path / "digits" / "report"
    write_json(folder / "report.json", {"overrides": overrides})
    filters, samples = (
        page.Section("", "", "", arguments=each) for each in (("filters",), ("reproduce", "items=[samples]"))
    )
    assert page._command(folder, filters) == f"python scripts/filters.py {command}output_dir={tmp_path}"
    assert (
        page._command(folder, samples)
        == f"python scripts/reproduce.py {command}output_dir={tmp_path} 'items=[samples]'"
    )


def test_a_report_without_its_settings_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "report"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"no report\.json; run the script that made it once more"):
        page.render(folder, SECTIONS)
    write_json(folder / "report.json", {"overrides": "dataset=mnist"})
    with pytest.raises(InputError, match=r"report\.json lists no overrides"):
        page.render(folder, SECTIONS)


def test_the_headline_has_ours_the_papers_and_the_difference(made: Page) -> None:
    top = re.sub(r"\s+", " ", made.text[""])
    assert "Natural images 98.9 (98.7–99.1)" in top
    # the interval's card stands between the number and the paper's
    assert re.search(r"PGD 94\.0 \(93\.5–94\.4\).*?last-pgd\.json 93\.2\+0\.8", top)
    assert re.search(r"FGSM 25\.4 \(24\.6–26\.3\).*?last-fgsm\.json 4\+21\.4", top)


def test_without_published_numbers_the_headline_says_so(empty: Path) -> None:
    table = accuracy()
    for record in table.records:
        record |= {"paper": None, "difference": None, "source": None}
    table.write(empty / "tables", "accuracy")
    top = Page(page.render(empty, SECTIONS)).text[""]
    assert "The paper has no numbers for these networks." in top and "94.0" in top


def test_a_table_of_nothing_has_no_headline(empty: Path) -> None:
    table = accuracy()
    for record in table.records:
        record["value"] = None
    table.write(empty / "tables", "accuracy")
    assert "No accuracy has been measured yet" in Page(page.render(empty, SECTIONS)).text[""]


def test_cells_have_everything_their_record_says(report: Path, made: Page) -> None:
    text = re.sub(r"\s+", " ", made.text["accuracy"])
    assert (
        "PGD, PGD wide Ours 93.95 95% interval 93.465632 to 94.400615 Seeds 1 Examples 10000 The paper's 93.2 "
        "Difference 0.75 In the paper Figure 4" in text
    )
    assert "Command python scripts/accuracy_table.py dataset=mnist recipe=fast" in text
    assert "../wide-pgd-fast/seed0/results/last-pgd.json" in made.links()
    assert {f"tables/accuracy.{suffix}" for suffix in ("json", "csv", "md", "tex")} <= set(made.links())
    buttons = [attributes for tag, attributes in made.elements if tag == "button"]
    content = read_json(report / "tables" / "accuracy.json")
    assert sum((each["aria-controls"] or "").startswith("detail-accuracy-") for each in buttons) == 1 + len(
        content["at"]
    )  # and the planted table's one


def test_a_cell_that_was_not_run_says_how_to_run_it(made: Page) -> None:
    text = re.sub(r"\s+", " ", made.text["accuracy"])
    assert re.search(
        r"Natural, Standard simple Seeds 0 The paper's 98\.5 .*? Command python scripts/accuracy_table", text
    )


def test_nothing_planted_becomes_markup(made: Page) -> None:
    assert not [attributes for _, attributes in made.elements for name in attributes if name.startswith("on")]
    assert not [attributes for tag, attributes in made.elements if tag == "img" and attributes.get("src") == "x"]
    data = [attributes for tag, attributes in made.elements if tag == "script" and attributes]
    programs = [attributes for tag, attributes in made.elements if tag == "script" and not attributes]
    assert len(programs) == 2 and all(attributes == {"type": "application/json"} for attributes in data)
    assert not any("planted" in script for script in made.scripts[-2:])
    for place in ("title", "header", "row", "cell", "command", "note"):
        assert f"{place} {PLANTED}" in made.text["accuracy"], place
    assert f"Error bars are the extremes. {PLANTED}" in made.text["accuracy"]
    assert f"the paper's {PLANTED}" in made.text["accuracy"]


def test_links_stay_below_the_data_sets_folder(made: Page) -> None:
    outside = [link for link in made.links() if not link.startswith(("#", "../", "tables/", "figures/"))]
    assert outside == ["https://arxiv.org/abs/1706.06083"]
    assert not [link for link in made.links() if "<" in link]


def test_the_page_needs_nothing_else(made: Page) -> None:
    assert not [tag for tag, _ in made.elements if tag in ("link", "iframe", "object", "embed")]
    assert all((attributes["src"] or "").startswith("data:") for _, attributes in made.elements if "src" in attributes)
    (policy,) = [each["content"] for tag, each in made.elements if tag == "meta" and "http-equiv" in each]
    assert policy and policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy.split("script-src")[1]


def test_the_panels_data_are_read_back(report: Path, made: Page) -> None:
    plots = [json.loads(script) for script in made.scripts[:-2]]
    stored = [read_json(path) for path in (report / "figures").glob("*.json")]
    assert len(plots) == sum(len(row) for chart in stored for row in chart["rows"])
    assert any(
        f"the paper's {PLANTED}".replace("<", "&lt;") in str(plot).replace("\\'", "'").replace("&gt;", ">")
        for plot in plots
    )


@pytest.mark.parametrize("chart", [curves, filters, histograms])
def test_plotly_accepts_every_plot(chart: Any) -> None:
    for row in figure(json.loads(chart().as_json()))["rows"]:
        for panel in row:
            go.Figure(panel["plot"])  # raises for a name or a value that Plotly does not know


def test_error_bars_and_what_is_not_finite() -> None:
    made = figure(json.loads(curves().as_json()))
    ours, paper = made["rows"][0][0]["plot"]["data"]
    assert ours["y"] == [0, 40, 87.5, None, 93.3]
    assert ours["error_y"]["array"] == pytest.approx([2, 2, 2, None, 2])
    assert ours["error_y"]["arrayminus"] == pytest.approx([3, 3, 3, None, 3])
    assert ours["customdata"][1] == (37, 42)
    assert (ours["line"]["dash"], paper["line"]["dash"], paper["line"]["color"]) == ("solid", "dash", "#333333")
    assert "error_y" not in paper
    axis = made["rows"][0][0]["plot"]["layout"]["xaxis"]
    assert (axis["type"], axis["ticktext"]) == ("log", ["1", "2", "4", "8", "16"])
    assert [name for name, _, _ in made["legend"]] == ["ours", f"the paper's {PLANTED}", "points"]


def test_bars_say_what_they_count() -> None:
    chart = json.loads(histograms().as_json())
    first, second = (panel["plot"] for panel in figure(chart)["rows"][0][:2])
    (bars,) = first["data"]
    assert bars["x"][0] == pytest.approx(1) and bars["width"][0] == pytest.approx(2)
    assert bars["customdata"][0] == (0, 2) and len(bars["y"]) == len(bars["x"]) == 30
    assert first["layout"]["yaxis"]["range"] == second["layout"]["yaxis"]["range"]  # the chart shares its axes
    chart["share"] = False
    first, second = (panel["plot"] for panel in figure(chart)["rows"][0][:2])
    assert first["layout"]["yaxis"]["range"] != second["layout"]["yaxis"]["range"]


def test_images() -> None:
    made = figure(json.loads(filters().as_json()))
    signed, (grey, coloured) = made["rows"]
    assert made["scales"] == [("-2", "2")]
    (trace,) = signed[0]["plot"]["data"]
    assert (trace["zmin"], trace["zmax"], trace["colorscale"][5][1]) == (-2, 2, "#f7f7f7")
    assert grey["plot"]["data"][0]["colorscale"] == [[0, "#000000"], [1, "#ffffff"]]
    (trace,) = coloured["plot"]["data"]
    pixels = filters().rows[1][1].image
    assert pixels and trace["z"][2][3] == pytest.approx(list(255 * pixels.pixels[2, 3]), rel=1e-4)


def test_the_same_files_make_the_same_bytes_without_torch(report: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mnist" / "report-fast"
    shutil.copytree(report, folder)
    program = (
        "import sys; from pathlib import Path; from saddlepoint.show import page\n"
        f"page.write(Path({str(folder)!r}), [page.Section('Accuracy', '', '', tables=('accuracy',))])\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'wandb', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    first = (folder / "index.html").read_bytes()
    section = page.Section("Accuracy", "", "", tables=("accuracy",))
    assert page.write(folder, [section]).read_bytes() == first


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tables/accuracy.json", "{", "is not valid JSON"),
        ("tables/accuracy.json", "{}", "does not describe a table"),
        (
            "tables/accuracy.json",
            '{"title": "", "header": ["a"], "rows": [["b"]], "notes": [], "records": [{"value": 1}], "at": [[0, 0]]}',
            "does not describe a table",
        ),
        ("figures/capacity.json", '{"title": "x"}', "does not describe a figure"),
        (
            "figures/capacity.json",
            '{"title": "", "caption": "", "rows": [], "share": false}',
            "does not describe a fig",
        ),
    ],
)
def test_a_damaged_file_is_named(empty: Path, file: str, content: str, message: str) -> None:
    (empty / file).parent.mkdir()
    (empty / file).write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        page.write(empty, SECTIONS)
    assert file in str(raised.value) and "\n" not in str(raised.value)
    assert not (empty / "index.html").exists()


def test_the_script(report: Path, tmp_path: Path, command: Run) -> None:
    shutil.copytree(report, tmp_path / "mnist" / "report")
    made = command("scripts/report.py", str(tmp_path / "mnist" / "report"))
    assert (made.status, made.out, made.err) == (0, f"wrote {tmp_path}/mnist/report/index.html\n", "")
    assert refused(command("scripts/report.py", str(tmp_path / "nowhere")), "no report at")
