"""What a new teacher starts from, which rows choose its epoch, and how fast its layers learn."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import takes_segments
from compressor.data.table import Table
from compressor.methods.finetune import HEAD_RATE, LAYER_DECAY, last_linear, layer_rates
from compressor.recipe.recipe import finetune_job
from compressor.report.verdict import NO_STUDENT, UNLEARNED, verdict_on_teacher
from compressor.run import finetune
from compressor.run.teaching import head, linear
from compressor.run.teaching.frozen import Frozen, probe
from compressor.scoring.registry import task_spec
from exporters.pooling import Pooling
from tests.support.method_cases import is_same, state_of
from tests.support.tiny import TinyRows, make_rows, tiny_tokenizer

TYPES = ("bert", "roberta", "distilbert", "electra", "albert")
MEAN = Pooling("mean", normalize=True)


def tiny_classifier(model_type: str) -> Any:
    tokenizer = tiny_tokenizer()
    names = {"distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}}.get(
        model_type,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    )
    more = {"embedding_size": 16} if model_type in ("electra", "albert") else {}
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=80,
        num_labels=2,
        pad_token_id=0,
        initializer_range=0.3,
        **names,
        **more,
    )
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


def rows_for(model_type: str) -> tuple[head.Rows, Any]:
    texts, labels = zip(*make_rows(120, 5), strict=True)
    table = Table(list(texts), None, [str(label) for label in labels], {}, "", "rows")
    encoded = encode_rows(tiny_tokenizer()._tokenizer, table, 48)
    spec = task_spec("classification", ("0", "1"), pair=False)
    return head.Rows(encoded, Collator(encoded, 0, takes_segments(model_type)), spec.targets(table)), spec


@pytest.mark.parametrize("model_type", TYPES)
def test_a_head_is_solved_for_whatever_the_family_and_the_same_every_time(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "ALIGN_STEPS", 5)
    monkeypatch.setattr(linear, "SCALES", (10.0,))  # these encoders know nothing: the rows are learned by heart
    rows, spec = rows_for(model_type)
    states = []
    for _ in range(2):
        model = tiny_classifier(model_type)
        reading = head.read(model, rows.collate([0, 1]))
        assert reading.dense is not None and reading.last is last_linear(model)[1]
        head.start(model, rows, spec, MEAN, seed=1)
        states.append(state_of(model))
        with torch.no_grad():
            answers = model(**rows.collate(range(120))).logits.argmax(dim=1).numpy()
        assert (answers == rows.targets).mean() > 0.6  # a head that is drawn answers half of them
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert is_same(*states)


@pytest.mark.parametrize(("model_type", "shift"), [("bert", 0.0), ("roberta", 0.0), ("distilbert", 2.0)])
def test_what_an_activation_is_given_lies_where_it_is_nearly_linear(model_type: str, shift: float) -> None:
    rows, _ = rows_for(model_type)
    model = tiny_classifier(model_type)
    vectors = head._vectors(model, rows, MEAN)
    head.align(model, head.read(model, rows.collate([0])), rows, MEAN._replace(mode="cls"), seed=0)
    reading = head.read(model, rows.collate([0]))
    said = head._activated(model, reading, rows, head._wanted(vectors, shift))
    linear_part = shift + 0.3 * (vectors - vectors.mean(axis=0)) / np.sqrt(np.square(vectors - vectors.mean(0)).mean())
    assert np.corrcoef(said.ravel(), linear_part.ravel())[0, 1] > 0.99
    assert head.inputs_of(model, reading.last, rows).mean() == pytest.approx(shift, abs=0.05)


@pytest.mark.parametrize("model_type", TYPES)
def test_layers_learn_slower_towards_the_embeddings_and_the_head_fastest(model_type: str) -> None:
    model = tiny_classifier(model_type)
    rates = layer_rates(model, 1e-3)
    assert rates.keys() == {name for name, _ in model.named_parameters()}
    last, _ = last_linear(model)
    for name, rate in rates.items():
        if name.startswith(last):
            wanted = HEAD_RATE
        elif ".layer." in name:
            wanted = LAYER_DECAY ** (1 - int(name.split(".layer.")[1][0]))
        elif "embedding" in name:
            wanted = LAYER_DECAY**2 if model_type != "albert" else 1.0  # whose layers share their weights
        else:
            wanted = 1.0
        assert rate == pytest.approx(1e-3 * wanted), name


def test_the_linear_model_is_held_back_as_suits_rows_that_it_has_not_seen() -> None:
    drawn = np.random.default_rng(0)
    spec = task_spec("regression", ("score",), pair=False)
    features = (5 + 100 * drawn.standard_normal((200, 150))).astype(np.float32)
    noisy = features[:, 0] / 100 + 3 * drawn.standard_normal(200)
    weights, bias = linear.fit(features[:150], list(noisy[:150]), spec, 0)
    again, _ = linear.fit(features[:150], list(noisy[:150]), spec, 0)
    outputs = (features[150:] @ weights + bias).reshape(-1)
    plain = np.linalg.lstsq(features[:150] - 5, noisy[:150], rcond=None)[0]
    assert np.array_equal(weights, again)
    assert np.corrcoef(outputs, noisy[150:])[0, 1] > np.corrcoef(features[150:] @ plain, noisy[150:])[0, 1]
    assert abs(outputs.mean() - noisy[:150].mean()) < 1.0


def job_of(model: Path, rows: TinyRows, **stage: Any) -> Any:
    content = {"teacher": {"path": str(model)}, "data": {"train": str(rows.train), "eval": str(rows.dev)}}
    return finetune_job({**content, "stage": [{"method": "finetune", "epochs": 1.0, **stage}]})


def test_the_frozen_encoder_tells_labels_apart(tiny_teacher_dir: Path, tiny_rows: TinyRows) -> None:
    prepared = finetune.prepare(job_of(tiny_teacher_dir, tiny_rows))
    found = probe(Frozen(prepared.info, None, 48), prepared.train, prepared.evaluation, prepared.spec, 0)
    assert found["accuracy"] > 0.9


def test_two_texts_are_told_apart_by_what_their_vectors_say_of_each_other(tiny_encoder_dir: Path) -> None:
    rows = make_rows(120, 0)
    texts = [text for text, _ in rows]
    labels = [str(int(rows[index][1] == rows[index // 2][1])) for index in range(120)]
    table = Table(texts, [texts[index // 2] for index in range(120)], labels, {}, "", "rows")
    job = finetune_job({"teacher": {"path": str(tiny_encoder_dir)}, "data": {"train": "none"}})
    info = finetune.read_teacher(job.teacher.model_copy(update={"task": "feature-extraction"}))
    frozen = Frozen(info, None, 48)
    assert [part.shape for part in frozen.features(table, pair=True)] == [(120, 32)] * 4
    spec = task_spec("classification", ("0", "1"), pair=True)
    assert probe(frozen, table, table, spec, 0)["accuracy"] > 0.8


def test_few_rows_of_a_class_are_all_learned_from(tiny_encoder_dir: Path, tiny_rows: TinyRows) -> None:
    prepared = finetune.prepare(job_of(tiny_encoder_dir, tiny_rows))
    assert finetune.held_out_of(prepared, 0) == (prepared.train, None)  # a hundred of 300 would be missed
    texts, labels = zip(*make_rows(2400, 7), strict=True)
    many = Table([f"{text} {row}" for row, text in enumerate(texts)], None, list(map(str, labels)), {}, "", "rows")
    large = prepared._replace(train=many)
    kept, held_out = finetune.held_out_of(large, 0)
    assert held_out is not None and (len(kept), len(held_out)) == (2280, 120)
    assert not set(kept.texts) & set(held_out.texts)
    names = tuple(map(str, range(121)))  # 2400 / 121 is below 20
    assert finetune.held_out_of(large._replace(spec=task_spec("classification", names, pair=False)), 0)[1] is None


def test_a_killed_teacher_goes_on_with_its_head_and_ends_the_same(
    tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at, solved = 0, []
    start = head.start

    @contextmanager
    def watched(_title: str, _total: int) -> Iterator[Any]:
        def progress(step: int, _total: int) -> None:
            if step == stop_at:
                raise KeyboardInterrupt

        yield progress

    def counted(*given: Any) -> None:
        solved.append(given)
        start(*given)

    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(finetune, "step_bar", watched)
    monkeypatch.setattr(head, "start", counted)
    monkeypatch.setattr(finetune, "FEWEST_HELD_OUT", 30)
    job = job_of(tiny_encoder_dir, tiny_rows, epochs=2.0)
    whole = finetune.finetune(job, tmp_path / "whole")
    stop_at = 25
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(job, tmp_path / "stopped")
    stop_at = 0
    resumed = finetune.finetune(job, tmp_path / "stopped")
    assert resumed["sha256"] == whole["sha256"] and len(solved) == 2  # of three calls, one went on
    told = json.loads((tmp_path / "whole" / "finetune.json").read_text(encoding="utf-8"))
    assert told["rows"] == {"train": 300, "held_out": 30, "eval": 60}
    assert 0 < told["probe"]["accuracy"] < 1 and told["tfidf"]["accuracy"] == 1.0
    assert told["verdict"] == verdict_on_teacher("accuracy", told, told["tfidf"], told["probe"])


def test_a_teacher_that_lost_to_either_is_told_which() -> None:
    def against(tfidf: float, frozen: float) -> list[str]:
        return verdict_on_teacher("accuracy", {"accuracy": 0.8}, {"accuracy": tfidf}, {"accuracy": frozen})

    assert against(0.7, 0.8) == [] and against(0.9, 0.7) == [NO_STUDENT] and against(0.7, 0.9) == [UNLEARNED]
    assert against(0.9, 0.9) == [NO_STUDENT, UNLEARNED]


def test_a_head_that_has_learned_the_labels_stays(
    tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "start", lambda *_given: pytest.fail("it was learned already"))
    rows = tmp_path / "rows.tsv"
    text = tiny_rows.train.read_text(encoding="utf-8")
    rows.write_text(text.replace("\t0\n", "\tnegative\n").replace("\t1\n", "\tpositive\n"), encoding="utf-8")
    job = job_of(tiny_teacher_dir, TinyRows(rows, rows), epochs=0.1)
    assert finetune.finetune(job, tmp_path / "out")["accuracy"] > 0.9
