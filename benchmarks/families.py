"""Which family of student is worth its bytes: the ordinary command with a budget, and --family named, on five sets.

    python -m benchmarks.families --data DIR --sst2-teacher MODEL --work DIR

Sets, teachers and processes are those of ``benchmarks.worth``, whose students are the transformers of the same picture.
An arm has a byte budget and a family and nothing else; ``rule`` names no family. Sentence encoders have ``static`` too.
``--trimmed`` also exports the teacher with a vocabulary of 8,000 tokens in int8, with nothing trained (``tenmeg export
--vocab-from``). Scores are on the dev sets, on which nothing was chosen; TF-IDF at the same bytes stands beside. A job
that is done is not done again. Writes docs/results/families.json; ``benchmarks.render`` draws docs/families.svg.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.runner import Prepared, run_all
from benchmarks.worth import FILES, prepare, simple, write_content
from compressor.files import write_json

RESULT_PATH = Path("docs/results/families.json")
COMMAND = "python -m benchmarks.families --data DIR --sst2-teacher MODEL --work DIR"
SIZES = ("550kB", "1MB", "2MB", "4MB", "7MB")
TRIMMED_TO = 8000  # tokens
FAMILIES = ("recurrent", "convolution", "mean", "static", "tfidf", "transformer", "rule")


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--sst2-teacher", required=True, type=click.Path(path_type=Path, exists=True), help="SST-2 classifier.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--set", "names", multiple=True, type=click.Choice(list(FILES)), help="Sets to run; all when left out.")
@click.option("--size", "sizes", multiple=True, type=click.Choice(SIZES), default=SIZES[:3], show_default=True)
@click.option("--family", "families", multiple=True, type=click.Choice(FAMILIES), default=FAMILIES[:4])
@click.option("--trimmed", "is_trimmed", is_flag=True, help="Score the trimmed teacher too.")
@click.option("--seeds", default=1, show_default=True)
@click.option("--processes", default=os.cpu_count() or 1, show_default="one per core")
@click.option("--result", type=click.Path(path_type=Path), default=RESULT_PATH, show_default=True)
def main(
    data: Path,
    sst2_teacher: Path,
    work: Path,
    names: tuple[str, ...],
    sizes: tuple[str, ...],
    families: tuple[str, ...],
    is_trimmed: bool,
    seeds: int,
    processes: int,
    result: Path,
) -> None:
    """Run the jobs and write what all that are done come to."""
    for name in names or FILES:
        prepared = of_vectors(data, work) if name == "STS-B" else prepare(name, data, sst2_teacher, work)
        jobs = [
            (prepared, f"{family}-{size}", recipe_part(family, size), seed)
            for seed in range(seeds)
            for size in sizes
            for family in families
            if family != "static" or is_encoder(prepared)
        ]
        for (_, arm, _, seed), found in zip(jobs, run_all(jobs, processes), strict=True):
            write_row(result, prepared, arm, seed, found)
        if is_trimmed:
            content = json.loads(result.read_text(encoding="utf-8"))
            content.setdefault("trimmed", {})[prepared.name] = trimmed(prepared)
            write_json(result, content)


def trimmed(prepared: Prepared) -> dict[str, Any]:
    """Return score and bytes of the teacher with another vocabulary, as a package."""
    from compressor.commands.folders import export_folder, make_package
    from compressor.data.table import read_table
    from compressor.models.teacher import read_teacher
    from compressor.packaging.inspection import verify_package
    from compressor.recipe.sections import TeacherSection
    from vocab.save import save_tokenizer
    from vocab.train import kind_of, train_vocabulary

    info = read_teacher(TeacherSection(path=str(prepared.teacher)))
    table = read_table(str(prepared.train), needs_label=None)
    folder, kind = prepared.folder / "trimmed", kind_of(info.tokenizer.to_str())
    made = train_vocabulary([*table.texts, *(table.pairs or [])], TRIMMED_TO, kind, info.tokenizer)
    save_tokenizer(made, folder / "vocab", {}, info.max_length)
    rows = str(prepared.evaluation)
    how = {"quantize": "int8", "vocab_from": str(folder / "vocab"), "eval": rows, "overwrite": True}
    export_folder(prepared.teacher, folder / "exported", **how)  # type: ignore[arg-type]
    make_package(folder / "exported", folder / "package", eval=rows, overwrite=True)
    found = verify_package(folder / "package", eval=rows)
    return {"package": found[found["metric"]], "metric": found["metric"], "bytes": found["bytes"], "tokens": TRIMMED_TO}


def of_vectors(data: Path, work: Path) -> Prepared:
    """Return STS-B with the sentence encoder itself as the teacher, whose similarities are scored."""
    folder = work / "STS-B-vectors"
    folder.mkdir(parents=True, exist_ok=True)
    train, dev = (data / "STS-B" / file for file in FILES["STS-B"])
    return Prepared("STS-B vectors", folder, teacher_folder(), train, dev)


def recipe_part(family: str, size: str) -> dict[str, Any]:
    """Return what an arm decides."""
    budget = {"budget": {"max_size": size}}
    return budget if family == "rule" else {**budget, "student": {"family": family}}


def is_encoder(prepared: Prepared) -> bool:
    """Return whether the teacher of a set gives vectors."""
    from compressor.models.teacher import read_teacher
    from compressor.recipe.sections import TeacherSection

    return not read_teacher(TeacherSection(path=str(prepared.teacher))).answers.has_head


def write_row(result: Path, prepared: Prepared, arm: str, seed: int, found: dict[str, Any]) -> None:
    """Put one job's figures into the file of results, beside those that are there."""
    content = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {"rows": {}}
    metric, (family, _, size) = found["metric"], arm.partition("-")
    content["rows"].setdefault(prepared.name, {}).setdefault(size, {}).setdefault(family, {})[str(seed)] = {
        "metric": metric,
        "teacher": found["teacher"][metric],
        "student": found["metrics"][metric],
        "package": found["package"]["metrics"][metric],
        "bytes": found["package"]["bytes"],
        "p50_ms": found["package"].get("p50_ms"),
        "shape": found["described"],
        "epochs": [stage["epochs"] for stage in found["stages"]],
        "cpu_seconds": [stage.get("cpu_seconds") for stage in found["training"]],
    }
    beside = content.setdefault("tfidf", {}).setdefault(prepared.name, {})
    if size not in beside:
        beside[size] = simple(prepared, size, metric)
    write_content(result, content, prepared, COMMAND)
    click.echo(f"{prepared.name} {arm} seed {seed}: {content['rows'][prepared.name][size][family][str(seed)]}")


if __name__ == "__main__":
    main()
