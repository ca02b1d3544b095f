"""What a run leaves opens in other people's libraries: the student's checkpoint and the package."""

import json
import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

from compressor.recipe.recipe import from_dict
from compressor.run.compress import Outcome, compress
from edge_demo import runtime

ORT_SCRIPT = """
import json, sys, numpy as np
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline
folder, text = sys.argv[1:]
model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name="model_quantized.onnx")
tokenizer = AutoTokenizer.from_pretrained(folder)
logits = model(**tokenizer(text, return_tensors="np")).logits
found = pipeline("text-classification", model=model, tokenizer=tokenizer)(text)[0]
print(json.dumps({"logits": np.asarray(logits)[0].tolist(), **found}))
"""


@pytest.fixture(scope="module")
def classifier(tiny_teacher_dir: Path, tiny_rows, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    recipe = from_dict(
        {
            "teacher": {"path": str(tiny_teacher_dir)},
            "data": {"train": str(tiny_rows.train), "eval": str(tiny_rows.dev)},
            "stage": [{"method": "distill", "epochs": 1.0}],
            "measure": {"runs": 5, "baselines": False},
        }
    )
    return compress(recipe, tmp_path_factory.mktemp("classifier") / "out")


def student_dir(outcome: Outcome) -> Path:
    return next((outcome.report_path.parent / "steps").glob("train-*")) / "model"


TEXT = "this film was wonderful"


@pytest.mark.slow
def test_the_student_opens_in_a_transformers_pipeline_and_answers_like_the_package(classifier: Outcome) -> None:
    from transformers import pipeline

    found = pipeline("text-classification", model=str(student_dir(classifier)))(TEXT)[0]
    ours = runtime.load(classifier.package_dir).predict(TEXT)
    assert found["label"] == ours.label
    assert found["score"] == pytest.approx(ours.score, abs=0.05)


@pytest.mark.slow
def test_the_student_encoder_opens_in_sentence_transformers(tiny_encoder_dir: Path, tiny_rows, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    lines = [line.split("\t")[0] for line in tiny_rows.train.read_text(encoding="utf-8").splitlines()[1:]]
    (tmp_path / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    recipe = from_dict(
        {
            "teacher": {"path": str(tiny_encoder_dir)},
            "data": {"train": str(tmp_path / "train.txt")},
            "stage": [{"method": "distill", "epochs": 1.0}],
            "measure": {"runs": 5, "baselines": False},
        }
    )
    outcome = compress(recipe, tmp_path / "out")
    theirs = SentenceTransformer(str(student_dir(outcome)), device="cpu").encode([TEXT])[0]
    ours = runtime.load(outcome.package_dir).predict(TEXT).embedding
    assert ours is not None
    assert np.linalg.norm(theirs) == pytest.approx(1.0, abs=1e-4)
    assert float(theirs @ ours) > 0.98


@pytest.mark.slow
@pytest.mark.network
def test_the_package_opens_in_optimum_onnx(classifier: Outcome, tmp_path: Path) -> None:
    """In an environment of its own: optimum-onnx 0.1.0 needs transformers below 4.58."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    torch_version = "torch==2.13.0"
    for packages in ([torch_version], ["optimum-onnx==0.1.0", "onnxruntime==1.31.1"]):
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=600)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-c", ORT_SCRIPT, str(classifier.package_dir), TEXT],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    ours = runtime.load(classifier.package_dir).predict(TEXT)
    assert found["label"] == ours.label
    assert found["score"] == pytest.approx(ours.score, abs=1e-3)
