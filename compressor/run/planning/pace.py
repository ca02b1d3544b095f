"""How much work this machine does in a minute, measured on steps of the very student: ``--minutes`` becomes an effort.

What is measured differs from time to time, so it is measured once: the epochs that it comes to are written into the
resolved recipe, and a run that goes on takes them from there.
"""

import time

import torch

from compressor.batches.outputs import device, has_fast_bfloat16
from compressor.models.teacher import TeacherInfo
from compressor.run.planning.stage_defaults import STEP_TOKENS, WORK, work_per_token
from compressor.student.student import new_model
from exporters.shape import Shape

SECONDS = 4.0  # of measuring
N_WARM = 2
TYPICAL_LENGTH = 24
SHARE = 1 / 1.3  # of a stage's time that forward, backward and update take; the rest is batches and imitation


def effort_of(minutes: float, info: TeacherInfo, shape: Shape) -> float:
    """Return the effort that takes so many minutes of training here."""
    model = new_model(info, shape, 0).train().to(device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    length = min(TYPICAL_LENGTH, shape.positions - info.family.position_offset)
    ids = torch.full((max(1, STEP_TOKENS // length), length), shape.vocab_size - 1, device=device())

    def step() -> None:
        with torch.autocast(device().type, dtype=torch.bfloat16, enabled=has_fast_bfloat16()):
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        optimizer.zero_grad()
        output[0].float().square().mean().backward()
        optimizer.step()

    for _ in range(N_WARM):
        step()
    started, n_steps = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        step()
        n_steps += 1
    per_second = SHARE * n_steps * ids.numel() * work_per_token(shape) / (time.perf_counter() - started)
    return 60 * minutes * per_second / WORK
