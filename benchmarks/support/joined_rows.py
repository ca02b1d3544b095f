"""Rows with several labels out of CLINC150: texts of one to three utterances, labelled with the set of their domains.

CLINC150's 150 intents fall into 10 domains of 15 (Larson et al. 2019, clinc/oos-eval, CC BY 3.0, whose list this is). A
row joins utterances of different domains; every utterance is in one row at most, and none in two of the files.
Evaluation rows are made of the half of the published dev set that comes first for each intent, test rows of the other.
"""

import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

SEED = 0
N_ROWS = {"train": 6000, "dev": 800, "test": 800}
SIZES = {1: 0.35, 2: 0.45, 3: 0.20}  # the share of the rows that join so many utterances
JOINS = {". ": 8, " and ": 5, ", ": 3, ". also ": 3, ", and then ": 2, "; ": 1}  # with their weights

DOMAINS = {
    "auto_and_commute": """current_location directions distance gas gas_type jump_start last_maintenance mpg
        oil_change_how oil_change_when schedule_maintenance tire_change tire_pressure traffic uber""",
    "banking": """account_blocked balance bill_balance bill_due freeze_account interest_rate min_payment order_checks
        pay_bill pin_change report_fraud routing spending_history transactions transfer""",
    "credit_cards": """application_status apr card_declined credit_limit credit_limit_change credit_score damaged_card
        expiration_date improve_credit_score international_fees new_card redeem_rewards replacement_card_duration
        report_lost_card rewards_balance""",
    "home": """calendar calendar_update next_song order order_status play_music reminder reminder_update
        shopping_list shopping_list_update smart_home todo_list todo_list_update update_playlist what_song""",
    "kitchen_and_dining": """accept_reservations calories cancel_reservation confirm_reservation cook_time food_last
        how_busy ingredient_substitution ingredients_list meal_suggestion nutrition_info recipe
        restaurant_reservation restaurant_reviews restaurant_suggestion""",
    "meta": """cancel change_accent change_ai_name change_language change_speed change_user_name change_volume maybe
        no repeat reset_settings sync_device user_name whisper_mode yes""",
    "small_talk": """are_you_a_bot do_you_have_pets fun_fact goodbye greeting how_old_are_you meaning_of_life
        tell_joke thank_you what_are_your_hobbies what_can_i_ask_you what_is_your_name where_are_you_from
        who_do_you_work_for who_made_you""",
    "travel": """book_flight book_hotel car_rental carry_on exchange_rate flight_status international_visa
        lost_luggage plug_type timezone translate travel_alert travel_notification travel_suggestion vaccines""",
    "utility": """alarm calculator date definition find_phone flip_coin make_call measurement_conversion roll_dice
        share_location spelling text time timer weather""",
    "work": """direct_deposit income insurance insurance_change meeting_schedule next_holiday payday pto_balance
        pto_request pto_request_status pto_used rollover_401k schedule_meeting taxes w2""",
}
DOMAIN_OF = {intent: domain for domain, intents in DOMAINS.items() for intent in intents.split()}

Utterance = tuple[str, str]  # text and intent


class Files(NamedTuple):
    """Tab-separated files with the columns text and labels."""

    train: Path
    dev: Path
    test: Path


def write_rows(data: Path, folder: Path) -> Files:
    """Write the three files into ``folder`` out of CLINC150, whose train.jsonl and dev.jsonl are in ``data``."""
    draw = random.Random(SEED)
    train, dev = (_read(data / f"{name}.jsonl") for name in ("train", "dev"))
    first, second = _halves(dev, draw)
    taken: set[str] = set()
    files = Files(*(folder / f"{name}.tsv" for name in Files._fields))
    folder.mkdir(parents=True, exist_ok=True)
    left = {name: _without(rows, taken) for name, rows in (("test", second), ("dev", first), ("train", train))}
    for path in files:
        rows = _joined_rows(left[path.stem], N_ROWS[path.stem], draw)
        lines = ["text\tlabels", *(f"{text}\t{'|'.join(labels)}" for text, labels in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def _read(path: Path) -> list[Utterance]:
    """Return the utterances, without the few stray quotation marks at an utterance's start."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = " ".join(row["text"].split())
        found.append((text[1:].strip() if text.startswith('"') and text.count('"') == 1 else text, row["label"]))
    return found


def _halves(rows: list[Utterance], draw: random.Random) -> tuple[list[Utterance], list[Utterance]]:
    by_intent = defaultdict(list)
    for row in rows:
        by_intent[row[1]].append(row)
    first: list[Utterance] = []
    second: list[Utterance] = []
    for _, mine in sorted(by_intent.items()):
        draw.shuffle(mine)
        first += mine[: len(mine) // 2]
        second += mine[len(mine) // 2 :]
    return first, second


def _without(rows: list[Utterance], taken: set[str]) -> list[Utterance]:
    """Return the rows whose utterance is not in ``taken``, to which it is added: no case, no punctuation."""
    kept = []
    for row in rows:
        key = " ".join(re.sub(r"[^\w]+", " ", row[0].lower()).split())
        if key not in taken:
            taken.add(key)
            kept.append(row)
    return kept


def _joined(parts: list[str], draw: random.Random) -> str:
    text = parts[0]
    for part in parts[1:]:
        join = draw.choices(list(JOINS), list(JOINS.values()))[0]
        ends = text[-1] in ".?!,;:"  # the utterance brings its own mark
        text += (" " + join.lstrip(".,; ") if ends else join) + part
    return text


def _joined_rows(utterances: list[Utterance], n_rows: int, draw: random.Random) -> list[tuple[str, list[str]]]:
    pools: dict[str, list[str]] = {domain: [] for domain in sorted(DOMAINS)}
    for text, intent in utterances:
        pools[DOMAIN_OF[intent]].append(text)
    for texts in pools.values():
        draw.shuffle(texts)
    sizes = [size for size, share in SIZES.items() for _ in range(round(share * n_rows))]
    rows = []
    for size in sorted(sizes, reverse=True):  # the longest first, while every domain has some left
        domains: list[str] = []
        for _ in range(size):
            left = [domain for domain in pools if pools[domain] and domain not in domains]
            domains.append(draw.choices(left, [len(pools[domain]) for domain in left])[0])
        rows.append((_joined([pools[domain].pop() for domain in domains], draw), sorted(domains)))
    draw.shuffle(rows)
    return rows
