"""The tables of docs/dual-training.md, from the results of dual_training, vocab_rules and task_agnostic."""

from typing import Any

from benchmarks.tables.tables import Table, markdown, of_results, score, tuning_table


def dual_tables(results: dict[str, dict[str, Any]]) -> dict[str, Table]:
    """Return the tables by the name of their place in a page; those without a result are left out."""
    made = {
        "dual_training": comparison_table,
        "dual_tuning": tuning_table,
        "vocab_rules": rules_table,
        "task_agnostic": task_table,
        "mixed_speed": speed_table,
    }
    return of_results(results, made)


def comparison_table(result: dict[str, Any]) -> str:
    """Return the arms side by side on every set, in points, with what was spent."""
    sets = result["sets"]
    names = ["arm"]
    for each in sets:
        names += [f"{each['set']}, {each['metric']}", "s per run"]
    rows = [names, ["---"] * len(names)]
    for index, first in enumerate(sets[0]["arms"]):
        row = [first["name"]]
        for each in sets:
            found = each["arms"][index]
            row += [score(found), f"{found['train_seconds']:.0f}"]
        rows.append(row)
    facts = "; ".join(
        f"{each['set']}: {each['rows']['train']:,} training and {each['rows']['eval']:,} dev rows, "
        f"{each['epochs']:g} epochs in batches of {result['batch_sizes'][each['set']]}, "
        f"teacher {100 * each['teacher']:.2f}"
        for each in sets
    )
    shape = result["shape"]
    arms = sets[0]["arms"]
    small, large = (arms[index]["predicted_bytes"] for index in (0, -1))
    note = (
        f"Points on dev, mean and standard deviation over {result['seeds']} seeds. Student: {shape['layers']} layers x "
        f"{shape['hidden']}, FFN {shape['ffn']}; as an int8 package {small:,} bytes by prediction, with the teacher's "
        f"vocabulary {large:,}. {facts}. One thread per run. Repeat: "
        f"`{result['command']}`."
    )
    return f"{markdown(rows)}\n\n{note}\n\n{_differences(sets)}"


def _differences(sets: list[dict[str, Any]]) -> str:
    """Return the differences that the comparison is about, in points, a line each."""
    questions = (
        ("Dual training against logits only", ("e", "f", "g"), "b"),
        ("Dual training against mapped embeddings", ("e", "f", "g"), "c"),
        ("Mixed vocabulary, two stages, against logits only and mapped embeddings", ("d",), "bc"),
        ("5,000 tokens against the teacher's 30,522, the same method", ("k",), "l"),
        ("5,000 tokens and dual training against the teacher's 30,522", ("h",), "l"),
    )
    lines = []
    for question, arms, others in questions:
        found = []
        for each in sets:
            means = {row["name"][0]: 100 * row["mean"] for row in each["arms"]}
            pairs = [f"{one} - {other}: {means[one] - means[other]:+.2f}" for one in arms for other in others]
            found.append(f"{each['set']} {', '.join(pairs)}")
        lines.append(f"- {question}: {'; '.join(found)}.")
    return "\n".join(lines)


def rules_table(result: dict[str, Any]) -> str:
    """Return the rules of vocab.choosing at equal bytes."""
    names = ["set", "rule", "tokens", "vocabulary bytes", "tokens per text", "accuracy"]
    rows = [names, ["---"] * len(names)]
    for row in result["rows"]:
        cells = (
            f"{row['size']:,}",
            f"{row['vocabulary_bytes']:,}",
            f"{row['student_tokens_per_text']:.2f}",
            score(row),
        )
        rows.append([row["set"], row["name"], *cells])
    n_seeds = result["seeds"]
    what = "One seed" if n_seeds == 1 else f"Mean and standard deviation over {n_seeds} seeds"
    note = f"{what}, in points on dev. Repeat: `{result['command']} --seeds {n_seeds}`."
    return f"{markdown(rows)}\n\n{note}"


def task_table(result: dict[str, Any]) -> str:
    """Return the fine-tuned students by task and start."""
    tasks = list(dict.fromkeys(row["task"] for row in result["finetuned"]))
    starts = list(dict.fromkeys(row["start"] for row in result["finetuned"]))
    scores = {(row["task"], row["start"]): row["accuracy"] for row in result["finetuned"]}
    rows = [["start of the student", *(f"{task}, accuracy" for task in tasks)], ["---"] * (1 + len(tasks))]
    rows += [[start, *(f"{100 * scores[task, start]:.2f}" for task in tasks)] for start in starts]
    training = sum(seconds for step, seconds in result["seconds"].items() if step.startswith(("train-", "teacher")))
    pairs = {name: metrics["spearman"] for name, metrics in result["sts_b"].items()}
    note = (
        f"{result['student']}: {result['bytes']:,} bytes, tokenizer included. {result['lines']:,} lines of an "
        f"encyclopaedia, no labels, {training / 60:.0f} minutes of teacher and training. Spearman on STS-B dev: "
        f"teacher {pairs['teacher']:.4f}, package {pairs['package']:.4f}. One seed, dev sets. "
        f"Repeat: `{result['command']}`."
    )
    return f"{markdown(rows)}\n\n{note}"


def speed_table(result: dict[str, Any]) -> str:
    """Return how fast rows are mixed, as one line."""
    speeds = "; ".join(f"{name}: {row['lines_per_second']:,.0f}" for name, row in result["measured"].items())
    return (
        f"Lines per second of {result['data']} ({result['lines']:,} lines), one process: {speeds}. "
        f"Repeat: `{result['command']}`."
    )
