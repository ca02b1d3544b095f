"""The bad inputs that concern layers that run again and the stages of Pea-KD: data, as in ``faults.bad_cases``."""

from benchmarks.faults.bad_files import Case

COMPRESS = "compress --teacher {teacher} --train {train} --eval {dev} --output {out}"

REPEATS = [
    Case(
        "Layers that run again", "a pattern that there is not", f"{COMPRESS} --repeat middle",
        r"repeat='middle', expected one of none, all, top_half, .* or layers counted from 0",
    ),
    Case(
        "Layers that run again", "a layer beyond the depth", f"{COMPRESS} --layers 2 --repeat 0,7",
        r"repeat=\[0, 7\] names layer 7, layers=2 has 0 to 1\. Use layers=8 or more, or leave it out of repeat",
    ),
    Case(
        "Layers that run again", "query and key exchanged where nothing runs again", f"{COMPRESS} --exchange",
        r"exchange=true without layers that run again\. Give repeat, or leave out exchange",
    ),
    Case(
        "Layers that run again", "the teacher's predictions last", f"{COMPRESS} --method teacher_predictions",
        r"'teacher_predictions' is the last stage, expected one after it that teaches the task",
    ),
]  # fmt: skip
