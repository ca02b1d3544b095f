"""What a stage trains on: its rows, what the teacher says of them, and variations of both."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from compressor.batches.encoded import Collate, Collator, EncodedRows, encode_rows
from compressor.batches.outputs import takes_segments
from compressor.batches.teacher_cache import TeacherCache, VariedCache, open_cache
from compressor.batches.variations import vary, with_variations
from compressor.data.table import Table
from compressor.mixing.batches import MixedCollator, encode_mixed, tokens_of
from compressor.run.feeding.relabel import relabelled
from compressor.run.journal import Journal
from compressor.run.planning.kept_states import depths_of
from compressor.training.objective import Objective
from compressor.training.registry import Stage

if TYPE_CHECKING:
    from compressor.run.planning.plan import Plan

VARIATIONS = "variations"  # the name of a step


def variations_of(planned: "Plan") -> Table:
    """Return all variations of the training rows, one round of them after the other."""
    rounds = [vary(planned.rows, number, planned.resolved.seed) for number in range(planned.n_variations)]
    texts = [text for each in rounds for text in each.texts]
    pairs = [text for each in rounds for text in each.pairs or []]
    return replace(rounds[0], texts=texts, pairs=pairs or None)


def stage_batches(
    planned: "Plan", journal: Journal, tokenizer: Tokenizer, objective: Objective, number: int, part: Path
) -> tuple[EncodedRows, Collate]:
    """Encode the rows with the views that the objective reads, and return how batches are made of them."""
    stage, info, mixing = planned.stages[number - 1], planned.info, objective.mixing
    if mixing is None:
        rows = encode_rows(tokenizer, planned.rows, planned.max_length, info.truncation)
        if stage.wants.varies and planned.n_variations:
            varied = encode_rows(tokenizer, variations_of(planned), planned.max_length, info.truncation)
            rows = with_variations(rows, varied)
    else:
        own = info.tokenizer
        both, rows = encode_mixed(own, tokenizer, planned.rows, planned.max_length)
    cache = _cache_for(planned, journal, stage) if stage.wants.cache else None
    labels = None if stage.wants.varies else planned.spec.target_array(planned.rows)
    labels = relabelled(planned, journal, objective, number, cache, labels, part)
    segments = takes_segments(info.config["model_type"])
    collate = Collator(
        rows, objective.student.config.pad_token_id, segments, labels, cache, has_words=mixing is not None
    )
    if mixing is None:
        return rows, collate
    assert stage.section.epochs is not None
    tokens = tokens_of(own, tokenizer, mixing.masked)
    seed = planned.resolved.seed + number
    return rows, MixedCollator(both, collate, tokens, mixing, seed, stage.section.epochs, info.max_length)


def _cache_for(planned: "Plan", journal: Journal, stage: Stage) -> TeacherCache | VariedCache:
    """Open what the method reads of the teacher's outputs; of the states that other stages read, nothing."""
    kept, depths = planned.kept, depths_of(planned.info.shape, planned.shape)
    words = kept.words if stage.wants.word_layers else ()
    folder = journal.folder("teacher")
    own = open_cache(folder / "cache", words, kept.first if stage.loss_options.first_layers(depths) else ())
    if not (stage.wants.varies and planned.n_variations):
        return own
    return VariedCache(own, open_cache(journal.folder(VARIATIONS) / "cache", ()), len(planned.rows))
