"""Learn the student's embeddings inside the teacher, which reads both vocabularies at once (stage I of two).

    x = E_s[w] P where the student's vocabulary cut the word, E_t[w] where the teacher's did

A word is cut by the student's vocabulary with probability ``mix``; E_s are the student's own word embeddings, at the
student's width, and P (student width x teacher width; nothing where they are equal) is thrown away afterwards, like the
teacher. The next stage trains the student's layers from these embeddings on its own vocabulary. Zhao et al.,
1909.11687 v2, section "mixed-vocabulary training".

objective = "mlm", the paper's: a word in seven is hidden and predicted, over the vocabulary that cut it (two softmaxes
tied to the two tables); a teacher without a masked-language head gets a fresh one. objective = "task", for a fine-tuned
teacher: with words cut by the student the teacher must still say what it said (``teacher_output``), see its own states
(``teacher_hidden``) and know the labels (``teacher_labels``). Refuses a student that keeps the teacher's vocabulary.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.mixing.teacher import MixedOptions, MixedTeacher, live_teacher, masked_head
from compressor.student.copied import mapped_table, principal_rows
from compressor.training import objective as base
from compressor.training.contract import Context, Mixing, check_choice
from compressor.training.imitation import Imitation, without_dropout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options(MixedOptions):
    """Knobs of ``mixed_vocabulary``."""

    method = "mixed_vocabulary"
    start: str = "student"  # E_s as the student has them; "principal": the best of their rank for the mapped table

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.method, "start", self.start, ("student", "principal"))


class Objective(base.Objective):
    """The student, of which only the word embeddings are trained, and the teacher that reads them."""

    trains_teacher = clips_apart = True
    learning_rate = 1e-3
    token_share = 0.2  # of the tokens that a stage sees by default: the embeddings are learned quickly
    is_scored = False  # the student's layers have learned nothing yet

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        vocab_map, model = live_teacher("mixed_vocabulary", context)
        self.student, self.options = context.student, options
        self.mixing = Mixing(options.mix, options.mix_ramp, options.masked if options.objective == "mlm" else 0.0)
        without_dropout(model)
        self.student.requires_grad_(False)
        table = self.student.get_input_embeddings().weight.requires_grad_(True)  # E_s (student tokens, width)
        mapped = mapped_table(vocab_map, model.get_input_embeddings().weight)
        self.up = None
        if table.shape[1] != mapped.shape[1]:
            if options.start == "principal":
                table.data.copy_(principal_rows(mapped, table.shape[1]))
            # By singular values: the default driver takes a table of fewer tokens than columns for one of rank 0.
            solved = torch.linalg.lstsq(table.detach().double(), mapped.double(), driver="gelsd").solution
            self.up = nn.Parameter(solved.float().contiguous())  # P (width, teacher's width)
        model.requires_grad_(options.teacher_learning_rate > 0)
        self.teacher = MixedTeacher(model, len(table))
        self.head = None
        if options.objective == "mlm":
            self.head, is_found = masked_head(model, context.teacher_dir, len(table))
            if not is_found:
                logger.warning("mixed_vocabulary: the teacher has no masked-language head; a fresh one is trained")
        self.imitation = Imitation.of_teacher(context, options.teacher_weights())

    def rate_of(self, name: str) -> float | None:
        """Return the teacher's own learning rate for its tensors."""
        return self.options.teacher_learning_rate if name.startswith("teacher.") else None

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            **batch: the mixed view (``mixed_ids``, ``mixed_mask``, ``mixed_segments``, ``mixed_words``, all (batch,
                tokens)), and ``mixed_labels`` or what ``Imitation.forward`` takes.
        """
        table = self.student.get_input_embeddings().weight
        needs_hidden = self.head is not None or self.imitation.needs_hidden(batch)
        output = self.teacher(batch, table, self.up, output_hidden_states=needs_hidden)
        if self.head is not None:
            student_table = table if self.up is None else table @ self.up
            own = self.teacher.model.get_input_embeddings().weight
            labels = batch["mixed_labels"]
            return {"teacher_mlm": self.head.loss(output.hidden_states[-1], labels, student_table, own)}
        terms = self.imitation(output, batch["mixed_mask"], batch["mixed_words"], batch)
        return {f"teacher_{name}": value for name, value in terms.items()}
