"""The report: one dictionary to JSON, a page without outside parts, and a card that two equal runs agree on."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report.report import REPORT_VERSION, check, drawings, html, model_card, rewrite_report, write_report

VOID = {"meta", "br", "link", "img"}


@pytest.fixture
def report() -> dict[str, Any]:
    log = [{"step": 20 * n, "loss": 3 / n, "logits": 2 / n, "hidden": 1 / n} for n in range(1, 9)]
    scores = {"accuracy": 0.892, "f1": 0.9}
    return {
        "version": REPORT_VERSION,
        "status": "not met",
        "recipe": {
            "teacher": {"path": "/home/somebody/models/sst2-minilm"},
            "data": {"train": "t.tsv", "eval": "/home/somebody/dev.tsv"},
            "student": {"layers": 6, "hidden": 384, "heads": 12, "ffn": 1024},
            "vocab": {"size": 6000},
        },
        "task": {
            "task": "text-classification",
            "kind": "classification",
            "labels": ["bad", "<b>good</b>"],
            "metric": "accuracy",
            "pair": False,
            "max_length": 64,
        },
        "metrics": dict.fromkeys(("teacher", "student", "onnx", "quantized", "package"), scores),
        "baselines": [{"name": "tf-idf", "metrics": {"accuracy": 0.8}, "bytes": 812345, "p50_ms": 0.2, "p95_ms": 0.3}],
        "budget": {
            "limits": {"size": "7MB", "latency": "p95=5ms", "drop": "1.0"},
            "measured": {"size": 6912345, "latency": 6.2, "drop": 1.2},
            "violations": ["latency: p95 6.20 ms, allowed 5 ms (--max-latency): 1.20 ms too slow"],
        },
        "size": {
            "predicted": {"embeddings": 1300000, "weights": 5300000},
            "measured": {"embeddings": 1300012, "weights": 5320000},
            "total": 6912345,
        },
        "quantization": {"scheme": "int4", "n_matmuls": 38, "n_matmuls_quantized": 38},
        "parity": [{"step": "quantize", "max_abs": 0.21, "cosine_min": 0.991, "top1_agreement": 0.993}],
        "latency": {
            "p50": 4.1,
            "p95": 6.2,
            "p99": 7.0,
            "mean": 4.3,
            "samples": [4.0, 4.1, 6.2],
            "threads": 1,
            "ep": "cpu",
        },
        "memory": {"peak_rss_mb": 101.2},
        "vocabulary": {
            "words": 12345,
            "identical_words": 0.9731,
            "identical_texts": 0.5,
            "newly_unknown_words": 0,
            "student_size": 6000,
            "teacher_size": 30522,
            "student_unknown_rate": 0.0,
            "teacher_unknown_rate": 0.0,
            "worst_words": [
                {"word": "<i>gags", "count": 189, "extra": 1890, "teacher": ["gag", "s"], "student": ["ga", "g", "s"]}
            ],
        },
        "training": [
            {
                "stage": "distill",
                "method": "distill",
                "seconds": 9.5,
                "log": [*log, {"step": 160, "eval_accuracy": 0.9}],
            }
        ],
        "hashes": {"model": "ab" * 32},
        "versions": {"torch": "2.13.0"},
        "machine": {"cpu": "a processor", "flags": ["avx2"]},
        "seconds": {"train": 9.5},
    }


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_well_formed_file(report: dict[str, Any]) -> None:
    page = html(report)
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    assert not [link for link in parser.outside if not link.startswith("http://www.w3.org")]
    assert "<script" not in page
    assert page.count("<svg") == len(drawings(report)) == 4


def test_the_page_shows_every_block(report: dict[str, Any]) -> None:
    page = html(report)
    for text in (
        "6,912,345",
        "1.20 ms too slow",
        "tf-idf",
        "812,345",
        "p95 6.20 ms",
        "1,300,012",
        "avx2",
        "0.991",
        "2.13.0",
    ):
        assert text in page, text


def test_the_page_certifies_the_vocabulary(report: dict[str, Any]) -> None:
    page = html(report)
    assert "Of 12,345 words of the evaluation texts, 97.3 % are cut as the teacher cuts them,\nand none became" in page
    assert '<th>tokens in the vocabulary</th><td class="n">30,522</td><td class="n">6,000</td>' in page
    assert '<td>gag + s</td><td>ga + g + s</td><td class="n">1,890</td>' in page
    report["vocabulary"]["newly_unknown_words"] = 3
    assert '<strong class="bad">3</strong> became unknown' in html(report)
    assert "3 newly unknown" in model_card(report)


def test_a_report_from_before_words_were_counted_is_still_a_page(report: dict[str, Any]) -> None:
    report["vocabulary"] = {"texts": 5, "student_size": 100, "teacher_size": 200}
    page = html(report)
    assert '<th>tokens in the vocabulary</th><td class="n">200</td><td class="n">100</td>' in page
    assert "cut as the teacher" not in page
    assert "cut as the teacher" not in model_card(report)


def test_text_of_the_data_cannot_become_markup(report: dict[str, Any]) -> None:
    report["recipe"]["teacher"]["path"] = "<script>alert(1)</script>"
    page = html(report)
    assert "<script>" not in page
    assert "<i>" not in page and "&lt;i&gt;gags" in page


def test_every_block_stands_alone(report: dict[str, Any]) -> None:
    for name in report:
        alone = {"version": REPORT_VERSION, "status": "failed", name: report[name]}
        assert html(alone).endswith("</html>\n"), name
        assert model_card(alone).startswith("---"), name


def test_a_report_of_a_run_that_failed_at_once_is_a_page() -> None:
    assert "failed" in html({"version": REPORT_VERSION, "status": "failed"})


def test_json_is_sorted_and_reads_back(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == report
    assert text == json.dumps(report, indent=2, sort_keys=True) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_numpy_and_nan_become_json(report: dict[str, Any], tmp_path: Path) -> None:
    report["metrics"]["onnx"] = {"accuracy": np.float32(0.5), "f1": math.nan, "where": tmp_path}
    write_report(report, tmp_path)
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["metrics"]["onnx"] == {"accuracy": 0.5, "f1": None, "where": str(tmp_path)}


def test_the_page_is_the_same_for_the_same_report(report: dict[str, Any]) -> None:
    assert html(report) == html(report)


def test_the_card_holds_neither_times_nor_folders(report: dict[str, Any]) -> None:
    card = model_card(report)
    other = {**report, "latency": {"p50": 99.0}, "seconds": {"train": 1}, "machine": {}, "versions": {}, "memory": {}}
    other["training"] = [{**report["training"][0], "seconds": 1.0}]
    assert model_card(other) == card
    assert "somebody" not in card
    assert not re.search(r"\bms\b|second", card)


def test_the_card_says_what_it_is_and_how_good(report: dict[str, Any]) -> None:
    card = model_card(report)
    assert card.startswith("---\nlibrary_name: tenmeg\npipeline_tag: text-classification\n---\n")
    assert "student of `sst2-minilm`" in card
    assert "Measured on dev.tsv." in card
    assert "| model | accuracy | f1 |\n|---|---|---|\n| teacher | 0.892 | 0.9 |\n" in card
    assert "| this package | 0.892 | 0.9 |\n" in card


def test_a_hub_id_stays_whole_in_the_card(report: dict[str, Any]) -> None:
    report["recipe"]["teacher"]["path"] = "sentence-transformers/all-MiniLM-L6-v2"
    assert "`sentence-transformers/all-MiniLM-L6-v2`" in model_card(report)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_an_unknown_version_is_refused(version: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"report: version {version!r} is not known, expected 1.")):
        check({"version": version})


def test_a_page_can_be_written_again_from_its_json(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path / "run")
    done = rewrite_report(tmp_path / "run", tmp_path / "again")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert Path(done["model_card.md"]).read_text(encoding="utf-8") == model_card(report)


def test_what_is_no_report_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"report: .*report\.json does not exist"):
        rewrite_report(tmp_path, tmp_path / "out")
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"report: .*report\.json is not JSON"):
        rewrite_report(tmp_path, tmp_path / "out")
    (tmp_path / "report.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="report: version None is not known"):
        rewrite_report(tmp_path, tmp_path / "out")


def test_the_norms_of_projections_are_not_drawn_among_the_losses(report: dict[str, Any]) -> None:
    before = drawings(report)
    for row in report["training"][0]["log"]:
        row["norm_left_384_96"] = 9.8
    assert drawings(report) == before
