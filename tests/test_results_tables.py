"""The tables of data/results/README.md say what the records say."""

import re

import pytest
from results_tables import README, TABLE, cells, renewed

from gaussreg_lab.experiments.catalogue import STUDIES

TEXT = README.read_text()


def test_every_number_is_the_record_s():
    assert TABLE.sub(renewed, TEXT) == TEXT
    assert len(TABLE.findall(TEXT)) >= len(STUDIES)


def test_every_study_has_its_paragraph_with_a_claim_and_a_verdict():
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
    assert list(sections) == list(STUDIES)
    for name, section in sections.items():
        assert "**Claim**" in section, name
        assert "**Setting**" in section, name
        assert re.search(r"\*\*(Does not hold|Holds|Partly|Not run)", section), name


def test_a_cell_is_a_mean_with_its_standard_error():
    runs = {f"a | seed {seed}": {"it": seed / 10, "curve": [0.0, seed / 2]} for seed in range(3)}
    assert cells({"runs": runs}, "a", ["it", "curve[1]", "missing"]) == [
        "0.1000 ± 0.0577",
        "0.5000 ± 0.2887",
        "-",
    ]
    runs |= {f"b | seed {seed}": {"it": 0.3} for seed in range(3)}
    assert cells({"runs": runs}, "a minus b", ["it"]) == ["-0.2000 ± 0.0577"]
    with pytest.raises(KeyError, match="runs of 'c'"):
        cells({"runs": runs}, "c", ["it"])
