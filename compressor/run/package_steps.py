"""The steps of a run that follow training: export, quantize, verify, package.

After every one of them the outputs are compared with those before, on real text; what is missed is listed, and decided
on at the end. The package's quality is measured on the package itself, opened by the runtime that a device uses.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.batches.outputs import predictor
from compressor.data import splits
from compressor.data.table import Table, select
from compressor.files import read_json, write_json
from compressor.packaging.build import Built, build_package, export_graph, quantize_graph
from compressor.packaging.inspection import edge_command, open_package, time_answers
from compressor.packaging.original import compare_original, rows_to_compare
from compressor.packaging.parity import Asked, compare_graphs
from compressor.report import fold_certificates
from compressor.report.verdict import verdict
from compressor.run.beside import what_stands_beside
from compressor.run.journal import Journal
from compressor.run.monitor import HELD_OUT_OUTPUTS
from compressor.run.planning.plan import Plan
from compressor.run.student_steps import student_tokenizer
from compressor.scoring.contract import TaskSpec
from compressor.scoring.drop import drop_of
from compressor.scoring.evaluate import evaluate, tuned
from compressor.student.student import load_student
from edge_demo import runtime
from exporters.graph.stored_once import check_checkpoint
from exporters.measuring import measure
from exporters.package import package_bytes

PARITY_ROWS = 200
OF_STUDENT = "student to sentence-transformers"


@dataclass(frozen=True)
class Sources:
    """Where the later steps of a run find what they need."""

    planned: Plan
    journal: Journal
    model_step: str

    @property
    def model_dir(self) -> Path:
        """The trained student's checkpoint."""
        return self.journal.folder(self.model_step) / "model"

    @property
    def questions(self) -> Table:
        """The evaluation rows as a device asks them: an encoder reads one text at a time."""
        return self.planned.spec.asked(self.planned.evaluation)

    def export(self, part: Path) -> None:
        """Write the clean float graph."""
        path, info = part / "model.onnx", self.planned.info
        student = Built(self.model_dir, self.planned.pooling)
        result, optimized = export_graph(info, path, self.planned.max_length, student)
        write_json(
            part / "export.json",
            {
                "inputs": list(result.inputs),
                "before": optimized.ops_before,
                "after": optimized.ops_after,
                "stored": check_checkpoint(path, result.parameters)._asdict(),
            },
        )

    def quantize(self, part: Path) -> None:
        """Write the graph in the planned bits; nothing may be left in float."""
        source, out = self.journal.folder("export") / "model.onnx", part / "model.onnx"
        write_json(part / "quantize.json", quantize_graph(source, out, self.planned.scheme))
        if self.planned.scheme.weight_bits is None:
            shutil.copyfile(source, out)

    def verify(self, part: Path) -> None:
        """Measure the quantised model as a package: parity, quality, latency, memory; and what stands beside it."""
        planned, measured = self.planned, self.planned.resolved.measure
        spec, evaluation, held_out = planned.spec, planned.evaluation, planned.held_out
        teacher = read_json(self.journal.folder("teacher") / "reference.json")["metrics"]
        teacher_outputs = np.load(self.journal.folder("teacher") / "eval_outputs.npy")
        student = load_student(planned.info, self.model_dir)
        info, tokenizer = planned.info, student_tokenizer(self.journal)
        predict = predictor(student, tokenizer, planned.max_length, planned.pooling, info.truncation)
        ours = evaluate(predict, evaluation, tuned(predict, held_out, spec), teacher_outputs).metrics
        parities, missed = self._parities(predict)
        for found, violations in self._beside_original(predict, teacher_outputs):
            parities, missed = parities + found, missed + violations
        draft = self.write(part / "draft", {}, {"metrics": {}})
        package = runtime.load(draft, threads=measured.threads)
        answer = spec.head().answer
        chosen = tuned(package.outputs, held_out, spec, answer)
        packaged, outputs = evaluate(package.outputs, evaluation, chosen, teacher_outputs, answer)
        points = 100 * (teacher[spec.metric] - packaged[spec.metric])
        drop = drop_of(
            points,
            self._as_the_teacher_is_judged().resampled(teacher_outputs, evaluation, teacher_outputs),
            chosen.resampled(outputs, evaluation, teacher_outputs, answer),
            len(evaluation),
        )
        opened = package if measured.ep == "cpu" else open_package(draft, measured.ep, measured.threads)
        latency = time_answers(opened, self.questions, measured.ep, measured.threads, measured.runs)
        beside = what_stands_beside(planned, tokenizer, part, teacher_outputs) if measured.baselines else []
        scores = {"teacher": teacher, "student": ours, "package": packaged}
        n_bytes = package_bytes(draft)  # but for its card, the package
        is_simple = planned.resolved.student.is_counted
        spoken = verdict(spec.metric, scores, beside, n_bytes, drop, planned.budget.max_drop, is_simple=is_simple)
        pair = self.questions.pairs[0] if self.questions.pairs else None
        memory = {"package_mb": measure.peak_rss_mb(edge_command(draft, evaluation.texts[0], pair))}
        shutil.rmtree(draft)
        write_json(
            part / "verify.json",
            {
                "metrics": scores,
                **({"tuned": chosen.manifest()} if chosen.manifest() else {}),
                "drop": points,
                "drop_interval": drop,
                "parity": parities,
                "parity_violations": missed,
                "quantization": self._quantization(),
                "latency": latency,
                "memory": memory,
                "baselines": beside,
                "verdict": spoken,
            },
        )

    def package(self, part: Path) -> None:
        """Write the final package, with the quality that was measured, and open it as a device would."""
        checked = read_json(self.journal.folder("verify") / "verify.json")
        metric = self.planned.spec.metric
        quality = {
            "metric": metric,
            **({"asked": True} if self.planned.resolved.measure.metric else {}),
            "value": round(checked["metrics"]["package"][metric], 6),
            "teacher": round(checked["metrics"]["teacher"][metric], 6),
            "rows": len(self.planned.evaluation),
            "data_sha256": self.planned.evaluation.sha256,
        }
        runtime.load(self.write(part / "package", quality, checked))

    def write(self, folder: Path, quality: dict[str, Any], checked: dict[str, Any]) -> Path:
        """Write a package of the quantised model."""
        planned = self.planned
        info, spec = planned.info, planned.spec.restored(checked.get("tuned", {}))
        export = read_json(self.journal.folder("export") / "export.json")
        return build_package(
            self.journal.folder("quantize") / "model.onnx",
            self.journal.folder("vocab") / "tokenizer",
            read_json(self.model_dir / "config.json"),
            spec,
            planned.evaluation,
            self.told(checked),
            folder,
            max_length=planned.max_length,
            inputs=tuple(export["inputs"]),
            pooling=planned.pooling._asdict() if planned.pooling else None,
            truncation=info.truncation,
            quality=quality,
            scheme={"name": planned.scheme.name, **self._quantization()},
            teacher={"name": info.name, "revision": info.revision, "sha256": info.hashes},
            inheritance=fold_certificates.manifest_block(self._certificates()),
            recipe_sha256=planned.digest,
        )

    def _quantization(self) -> dict[str, Any]:
        content = read_json(self.journal.folder("quantize") / "quantize.json")
        return {name: value for name, value in content.items() if name not in ("bytes_before", "bytes_after")}

    def told(self, checked: dict[str, Any]) -> dict[str, Any]:
        """Return what report and card say of the student and of its package."""
        planned = self.planned
        return {
            "version": 1,
            "shape": planned.shape.as_dict(),
            "recipe": planned.resolved.model_dump(mode="json"),
            "task": {
                "task": planned.info.task,
                "kind": planned.spec.kind,
                "labels": list(planned.info.labels),
                "metric": planned.spec.metric,
                "pair": planned.spec.pair,
                "max_length": planned.max_length,
                **checked.get("tuned", {}),
            },
            "metrics": checked["metrics"],
            **({"drop": checked["drop_interval"]} if "drop_interval" in checked else {}),
            "verdict": checked.get("verdict", []),
            "vocabulary": read_json(self.journal.folder("vocab") / "statistics.json"),
            "quantization": self._quantization(),
            "inheritance": self._certificates(),
        }

    def _certificates(self) -> list[dict[str, Any]]:
        """Return the certificates of the training steps, each held to its tolerances."""
        return fold_certificates.read(self.journal.steps_dir, fold_certificates.step_names(self.planned.resolved.stage))

    def _as_the_teacher_is_judged(self) -> TaskSpec:
        """Return the task as the step "teacher" tuned it, on the teacher's own outputs on held-out rows."""
        planned = self.planned
        if planned.held_out is None or not planned.spec.tunes:
            return planned.spec
        return planned.spec.tuned(np.load(self.journal.folder("teacher") / HELD_OUT_OUTPUTS), planned.held_out)

    def _parities(self, predict: Any) -> tuple[list[dict[str, Any]], list[str]]:
        """Compare torch with the float graph, and that with the quantised one, on evaluation rows."""
        inputs = read_json(self.journal.folder("export") / "export.json")["inputs"]
        table = splits.subset(self.questions, min(PARITY_ROWS, len(self.questions)), self.planned.resolved.seed)
        settings = Asked(student_tokenizer(self.journal), self.planned.max_length, inputs, self.planned.info.truncation)
        graph, quantized = (self.journal.folder(step) / "model.onnx" for step in ("export", "quantize"))
        made = {self.planned.scheme.name: quantized}
        return compare_graphs(self.planned.spec, predict, graph, made, settings, table)

    def _beside_original(
        self, predict: Any, teacher_outputs: npt.NDArray[np.float32]
    ) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
        """Compare the teacher's answers and the student's with those that sentence-transformers gives."""
        info, asked = self.planned.info, self.questions
        if info.saved_in is None:
            return
        rows = rows_to_compare(asked)
        table, scores = select(asked, rows), info.pooling is None
        yield compare_original(info.saved_in, teacher_outputs[rows], table.texts, table.pairs, scores=scores)
        if not scores:  # of a student that scores only transformers' own files are written
            ours = predict(table.texts, None)
            yield compare_original(self.model_dir, ours, table.texts, None, scores=False, step=OF_STUDENT)
