"""What a stage does with rows it is not trained on: scores, the best state, batches to check the student on.

Of the evaluation rows come the curve in the report and the batches; nothing is chosen by them. The best epoch is chosen
by rows that are held out of the training rows.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import predictor, takes_segments
from compressor.data import splits
from compressor.data.table import select, single_texts
from compressor.run.journal import Journal
from compressor.scoring.evaluate import agreed, evaluate, outputs_on
from compressor.training.objective import Objective

if TYPE_CHECKING:
    from compressor.run.planning.plan import Plan

HELD_OUT_OUTPUTS = "held_out_outputs.npy"  # of the teacher, in its step
MONITOR_ROWS = 2000  # rows scored at a time, for the curve in the report; nothing is chosen by them
FOLD_ROWS = 64
FOLD_BATCH = 16


def monitor(planned: "Plan", journal: Journal, tokenizer: Tokenizer) -> Callable[[Objective], dict[str, float]]:
    """Return a function that scores an objective's student, or the model that it says to score instead."""
    table = splits.subset(planned.evaluation, min(MONITOR_ROWS, len(planned.evaluation)), planned.resolved.seed)
    is_whole = len(table) == len(planned.evaluation)
    reference = np.load(journal.folder("teacher") / "eval_outputs.npy") if is_whole else None
    if reference is None and planned.spec.metric in planned.spec.of_teacher:
        table, reference = planned.evaluation, np.load(journal.folder("teacher") / "eval_outputs.npy")

    def score(objective: Objective) -> dict[str, float]:
        scored, info = objective.scored(), planned.info
        predict = predictor(scored, tokenizer, planned.max_length, planned.pooling, info.truncation)  # type: ignore[arg-type]
        metrics = evaluate(predict, table, planned.spec, reference).metrics
        return {f"eval_{name}": round(value, 6) for name, value in metrics.items()}

    return score


def judge(planned: "Plan", journal: Journal, tokenizer: Tokenizer) -> Callable[[Objective], float] | None:
    """Return a function that scores an objective's student on held-out rows, to keep the best; None without any.

    The score is the task's metric, and where rows have nothing to compare with, how far the student answers like its
    teacher.
    """
    table, spec, info = planned.held_out, planned.spec, planned.info
    if table is None:
        return None
    reference = np.load(journal.folder("teacher") / HELD_OUT_OUTPUTS)

    def score(objective: Objective) -> float:
        predict = predictor(objective.scored(), tokenizer, planned.max_length, planned.pooling, info.truncation)  # type: ignore[arg-type]
        outputs = outputs_on(predict, table, spec)
        measured = spec.measure(outputs, table)
        if spec.metric in measured:
            return measured[spec.metric]
        return list(agreed(outputs, reference, spec).values())[-1]

    return score


def evaluation_batches(planned: "Plan", tokenizer: Tokenizer, pad_id: int) -> list[dict[str, Tensor]]:
    """Return the first ``FOLD_ROWS`` evaluation rows as the student reads them, in their order, without labels.

    A batch holds ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the family takes them, each
    (at most FOLD_BATCH, longest row of the batch), int64.
    """
    table = select(planned.evaluation, range(min(FOLD_ROWS, len(planned.evaluation))))
    if not planned.spec.reads_pairs:
        table = single_texts(table)
    rows = encode_rows(tokenizer, table, planned.max_length, planned.info.truncation)
    collate = Collator(rows, pad_id, takes_segments(planned.info.config["model_type"]))
    n_rows = min(FOLD_ROWS, len(table))
    return [collate(range(start, min(start + FOLD_BATCH, n_rows))) for start in range(0, n_rows, FOLD_BATCH)]
