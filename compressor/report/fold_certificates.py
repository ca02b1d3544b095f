"""The certificates of a run's folds, after training: read and held to their own tolerances, told, put into the package.

A stage whose method makes weights out of teacher weights leaves ``fold.json`` in its step, which is what
``compressor.inherit.fold.certify`` returned. From here it goes into the report, the model card, the last lines of a run
and the package's manifest. One that is over its own tolerances, of another version, or changed after it was written is
refused: nothing is packaged. No torch here.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import read_json
from compressor.models.families import Family, family_of
from compressor.training.contract import FoldError, MethodOptions

if TYPE_CHECKING:
    from compressor.recipe.sections import StageSection
    from compressor.training.registry import Stage
    from exporters.shape import Shape

FILE = "fold.json"
VERSION = 1  # of ``compressor.inherit.fold``, the writer
SLACK = 1.01  # a certificate keeps three digits
# A head's modules, about as long as they are called in every family; their names differ.
HEAD_MODULES = ("classifier.dense", "classifier.out_proj")
TYPICAL = 1.2e-07  # as long as most differences are when they are written down
CARD_HEADING = "\n## Weights made of the teacher's\n\n"

Certificate = dict[str, Any]  # Any: JSON, see ``compressor.inherit.fold.certify``


def step_names(stages: "Sequence[StageSection]") -> tuple[str, ...]:
    """Return the names of the training steps of a recipe, in their order."""
    return tuple(f"train-{number}-{stage.method}" for number, stage in enumerate(stages, start=1))


def read(steps_dir: Path, names: Sequence[str]) -> list[Certificate]:
    """Return the certificates of the training steps that have one, with their stage's number and method.

    Args:
        steps_dir: the folder of a run's finished steps.
        names: of the training steps.

    Raises:
        FoldError: if one is not whole, was changed after it was written, or is over its own tolerances.
    """
    found = []
    for name in names:
        path = steps_dir / name / FILE
        written = read_json(path.parent / "step.json")["files"]
        if FILE not in written and not path.exists():
            continue
        _, number, method = name.split("-", 2)
        content = _load(path)
        check(content, path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != written.get(FILE, {}).get("sha256"):
            raise FoldError(f"fold: {path} was changed after its step had written it. {_repeat(path)}")
        found.append({"stage": int(number), "method": method, **content})
    return found


def _load(path: Path) -> Certificate:
    try:
        content: Certificate = read_json(path)
        version = content["version"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FoldError(f"fold: {path} is no certificate ({error!r}). {_repeat(path)}") from error
    if version != VERSION:
        raise FoldError(f"fold: {path} has version {version!r}, expected {VERSION}. {_repeat(path)}")
    return content


def check(certificate: Certificate, path: Path) -> None:
    """Hold a certificate to the tolerances that it names itself; ``path`` is for the sentence.

    Raises:
        FoldError: naming the first difference that is over its tolerance.
    """
    try:
        largest, outputs, allowed = (certificate[key] for key in ("largest", "outputs", "tolerances"))
        compared = {
            f"tensor {largest['tensor']}": (largest["difference"], allowed["tensors"] * largest["scale"]),
            "outputs in float64": (outputs["float64"], allowed["float64"] * outputs["scale"]),
            "outputs as stored": (outputs["stored"], allowed["stored"] * outputs["scale"]),
        }
        over = [(what, got, limit) for what, (got, limit) in compared.items() if not got <= SLACK * limit]  # NaN too
        sentence(certificate | {"stage": 1, "method": ""})  # everything that is told is there
    except (LookupError, TypeError, ValueError) as error:
        raise FoldError(f"fold: {path} is no certificate ({error!r}). {_repeat(path)}") from error
    for what, got, limit in over:
        raise FoldError(
            f"fold: {path} says that {what} differ by {got:.3g} between the trained network and its plain student, "
            f"allowed {limit:.3g}, so nothing is packaged. {_repeat(path)}"
        )


def _repeat(path: Path) -> str:
    return f"Delete {path.parent} and run again to repeat the stage."


def sentence(certificate: Certificate) -> str:
    """Return what one certificate says, in one sentence."""
    largest, outputs = certificate["largest"], certificate["outputs"]
    return (
        f"Stage {certificate['stage']} ({certificate['method']}) folded exactly: largest difference of a tensor "
        f"{largest['difference']:.2g} ({largest['tensor']}), of the outputs on {outputs['rows']:,} rows of real text "
        f"{outputs['float64']:.2g} in float64 and {outputs['stored']:.2g} as stored."
    )


def closing_lines(certificates: Sequence[Certificate]) -> list[str]:
    """Return one short line per certificate for the block that ends a run."""
    return [
        f"folded    {each['method']}: tensors within {each['largest']['difference']:.2g}, outputs within "
        f"{each['outputs']['float64']:.2g} in float64, {each['outputs']['stored']:.2g} as stored"
        for each in certificates
    ]


def manifest_block(certificates: Sequence[Certificate]) -> list[Certificate]:
    """Return what the package's manifest holds of the certificates: the differences with two digits."""
    return [
        {
            "stage": each["stage"],
            "method": each["method"],
            "tensors": {name: _two_digits(value) for name, value in each["tensors"].items()},
            "largest": {name: _two_digits(value) for name, value in each["largest"].items()},
            "outputs": {name: _two_digits(value) for name, value in each["outputs"].items()},
            "tolerances": each["tolerances"],
        }
        for each in certificates
    ]


def _two_digits(value: Any) -> Any:  # Any: a difference, or a name or a number of rows, which stay
    return float(f"{value:.2g}") if isinstance(value, float) else value


def told(block: object) -> list[str]:
    """Return the sentences of a manifest's block; a block that is not understood has none, as in an older package."""
    try:
        return [sentence(each) for each in block] if isinstance(block, list) else []
    except (LookupError, TypeError, ValueError):
        return []


def predicted_bytes(stages: "Sequence[Stage]", model_type: str, teacher: "Shape") -> tuple[int, int]:
    """Return the bytes that the certificates of a recipe will take in a package: (once, per layer).

    Args:
        stages: of the run.
        model_type: of teacher and student.
        teacher: its shape, whose head the student has too.
    """
    sizes, n_head_modules = [], teacher.head_layers + 1 if teacher.n_labels else 0
    for n_layers in (0, 1):
        certificates = [
            _typical(number, stage, tensor_names(family_of(model_type), n_head_modules, n_layers, stage.options))
            for number, stage in enumerate(stages, start=1)
            if stage.method.objective_class.is_folded
        ]
        text = json.dumps({"inheritance": manifest_block(certificates)}, indent=2)
        card = [CARD_HEADING, *(f"- {sentence(each)}\n" for each in certificates)] if certificates else []
        sizes.append(len(text) + len("".join(card)))
    empty = len(json.dumps({"inheritance": []}, indent=2))
    return sizes[0] - empty, sizes[1] - sizes[0]


def tensor_names(family: Family, n_head_modules: int, n_layers: int, options: MethodOptions) -> list[str]:
    """Return about the names that a stage's certificate lists: not those that its options leave to the student."""
    prefix = f"{family.prefix}." if n_head_modules else ""
    names = [f"{prefix}embeddings.{table}.weight" for table in family.embeddings if options.certifies("table")]
    modules = [(f"{prefix}embeddings.LayerNorm", True), *((module, False) for module in HEAD_MODULES[:n_head_modules])]
    modules += [
        (f"{prefix}{family.module(layer, role)}", role.endswith("norm"))
        for layer in range(n_layers)
        for role in family.roles
    ]
    for module, is_norm in modules:
        for part in ("weight", "bias"):
            names += [f"{module}.{part}"] if options.certifies("norm" if is_norm else part) else []
    return names


def _typical(number: int, stage: "Stage", names: list[str]) -> Certificate:
    """Return a certificate of about the length that this stage's will have."""
    return {
        "stage": number,
        "method": stage.method.name,
        "tensors": dict.fromkeys(names, TYPICAL),
        "largest": {"tensor": max(names, key=len, default=""), "difference": TYPICAL, "scale": 0.12},
        "outputs": {"rows": 64, "float64": TYPICAL, "stored": TYPICAL, "scale": 1.0},
        "tolerances": {"tensors": 1e-4, "float64": 1e-9, "stored": 1e-4},
    }
