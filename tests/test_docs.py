"""The documents: links resolve, the navigation is complete, code runs, and what they repeat is what it repeats."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import node_cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
CI = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def leaves(nav: object) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for child in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(child)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What a link can point at within a page: its headings, as GitHub and MkDocs both name them."""
    headings = re.findall(
        r"^#+ (.*)", re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S), flags=re.M
    )
    return {re.sub(r" ", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


def test_the_navigation_has_every_page_once():
    assert sorted(leaves(SITE["nav"])) == [path.relative_to(DOCS).as_posix() for path in PAGES]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.relative_to(ROOT).as_posix() for path in DOCUMENTS])
def test_links_resolve(path: Path):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text("utf-8"))):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=[path.relative_to(DOCS).as_posix() for path in PAGES])
def test_a_page_links_to_pages_and_pictures_only(path: Path):
    """The site has nothing of the repository besides docs/."""
    links = re.findall(r"\]\(([^)\s#]+)", without_code(path.read_text("utf-8")))
    outside = [
        link for link in links if not re.match("https?://", link) and DOCS not in (path.parent / link).resolve().parents
    ]
    assert outside == []


def test_every_picture_is_shown():
    shown = "\n".join(path.read_text("utf-8") for path in DOCUMENTS)
    assert [path.name for path in (DOCS / "images").iterdir() if path.name not in shown] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "group", ["dataset", "model", "solver", "gradient", "task", "optimizer", "scheduler", "logger"]
)
def test_the_readme_names_every_choice(group: str):
    row = next(
        line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if re.match(rf"\| .*`{group}`.* \|", line)
    )
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", row))))
    assert {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")} <= named


def test_the_configuration_page_has_every_file_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    page = import_module("configuration_page")
    written = page.on_page_markdown((DOCS / "configuration.md").read_text("utf-8"))
    blocks = re.findall(r"^### (\w+)=(\w+)\n\n```yaml\n(.*?)^```", written, flags=re.M | re.S)
    files = {(path.parent.name, path.stem): path.read_text("utf-8") for path in (ROOT / "configs").glob("*/*.yaml")}
    assert {(group, choice): text for group, choice, text in blocks} == {
        key: f"{text.strip()}\n" for key, text in files.items()
    }
    assert re.findall(r"^## Keys of node-(\w+)", written, flags=re.M) == sorted(
        path.stem for path in (ROOT / "configs").glob("*.yaml")
    )
    assert "hydra:" not in written
    sys.modules.pop("configuration_page")


def test_the_code_of_the_python_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, typed_in
):
    small = [
        "dataset.num_samples=60",
        "model.width=4",
        "trainer.epochs=1",
        "logger=jsonl",
        "num_threads=1",
        "device=cpu",
    ]
    typed_in(tmp_path, "node-train", "dataset=moons", "model=odenet_mlp", "run_dir=outputs/moons", *small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text("utf-8"), flags=re.M | re.S):
        exec(compile(block, "python.md", "exec"), names)
    assert "torch.Size([11, 1, 2])" in capsys.readouterr().out


def test_what_the_project_says_of_itself_agrees():
    project = (ROOT / "pyproject.toml").read_text()
    tested = yaml.safe_load(CI)["jobs"]["test"]
    versions = tested["strategy"]["matrix"]["python-version"]
    assert re.findall(r"Python :: (3\.\d+)", project) == versions
    assert f'requires-python = ">={versions[0]}"' in project
    assert ".ci/run" in [step.get("run") for step in tested["steps"]]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == node_cli.__version__
    assert f"## {node_cli.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    for path in (*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"):
        assert yaml.safe_load(path.read_text())


def test_every_target_of_the_makefile_is_one_that_the_documents_name():
    targets = set(re.findall(r"^([a-z]\w*):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"\bmake (\w+)", "\n".join(path.read_text("utf-8") for path in DOCUMENTS) + CI))
    assert targets <= named


def test_every_file_that_a_page_names_exists():
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(
            r"`((?:tests|benchmarks|examples|node_cli)/[\w/]+(?:\.\w+)?/?)`", path.read_text("utf-8")
        )
    }
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
