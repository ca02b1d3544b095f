"""Columns: found in well-known and unknown headers, refused when ambiguous, flags first."""

import csv
import io
from pathlib import Path

import pytest

from compressor.data.columns import Columns, choose, words_of
from compressor.data.table import Table, read_table


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(data)
    return str(path)


def roles(table: Table) -> tuple[object, object, object]:
    return table.columns["text"], table.columns["pair"], table.columns["label"]


def tsv(names: list[str], *rows: list[str]) -> str:
    return "".join("\t".join(row) + "\n" for row in (names, *rows))


def csv_text(names: list[str], *rows: list[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([names, *rows])
    return out.getvalue()


LONG = ["the plot never finds its feet", "a warm and funny film", "it was not worth the price", "we loved every minute"]

# Headers of well-known data sets, with one typical row, and the roles that must be found.
SHAPES = {
    "SST-2": ("sentence\tlabel", "a warm film\t1", ("sentence", None, "label")),
    "MRPC": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\tHe said so\tSo he said",
             ("#1 String", "#2 String", "Quality")),
    "STS-B": ("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
              "0\tmain\tMSRvid\t2012\t0001\tnone\tnone\tA plane lands\tA plane is landing\t4.750",
              ("sentence1", "sentence2", "score")),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\tHow so?\tWhy is that?\t0",
            ("question1", "question2", "is_duplicate")),
    "MNLI": ("index\tpromptID\tpairID\tgenre\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label",
             "0\t1\t1n\tfiction\t(ROOT x)\tHe left town\tHe is away\tneutral\tentailment",
             ("sentence1", "sentence2", "gold_label")),
    "QNLI": ("index\tquestion\tsentence\tlabel", "0\tWhen was it?\tIt was in May then\tentailment",
             ("question", "sentence", "label")),
    "SNLI": ("gold_label\tsentence1\tsentence2", "neutral\tA man sings\tA man is famous",
             ("sentence1", "sentence2", "gold_label")),
    "AG News": ("Class Index\tTitle\tDescription", "3\tStocks fall\tStocks fell on Monday again",
                ("Description", None, "Class Index")),
    "AG News lower": ("class\ttitle\tdescription", "3\tStocks fall\tStocks fell on Monday again",
                      ("description", None, "class")),
    "IMDB": ("review\tsentiment", "A very good film\tpositive", ("review", None, "sentiment")),
    "TREC": ("label\ttext", "DESC\tHow did serfdom develop ?", ("text", None, "label")),
    "airline": ("tweet_id\tairline_sentiment\tairline_sentiment_confidence\tnegativereason\tname\ttext\ttweet_created",
                "5703\tneutral\t1.0\tLate Flight\tcairdin\t@VirginAmerica What she said\t2015-02-24 11:35:52",
                ("text", None, "airline_sentiment")),
    "Amazon": ("reviewerID\tasin\treviewText\toverall\tsummary", "A1\tB2\tWorks as told\t5.0\tFine thing",
               ("reviewText", None, "overall")),
    "clothing": ("Clothing ID\tTitle\tReview Text\tRating\tRecommended IND", "1\tNice one\tI like the dress\t4\t1",
                 ("Review Text", None, "Rating")),
    "HuffPost": ("category\theadline\tauthors\tlink\tshort_description\tdate",
                 "CRIME\tMan is held\tA Person\thttp://x\tHe was held on Monday\t2018-05-26",
                 ("short_description", None, "category")),
    "SetFit": ("text\tlabel\tlabel_text", "a warm film\t1\tpositive", ("text", None, "label")),
    "BANKING77": ("text\tcategory", "my card is lost\tlost_card", ("text", None, "category")),
    "PAWS": ("id\tsentence1\tsentence2\tlabel", "1\tA then B\tB then A\t0", ("sentence1", "sentence2", "label")),
    "ANLI": ("uid\tpremise\thypothesis\tlabel\treason", "a\tHe left town\tHe is away\t0\tSince he left it",
             ("premise", "hypothesis", "label")),
    "MASSIVE": ("id\tlocale\tpartition\tscenario\tintent\tutt\tannot_utt",
                "0\ten-US\ttrain\talarm\talarm_set\twake me up at nine\twake me up at [time : nine]",
                ("utt", None, "intent")),
    "Kaggle tweets": ("textID\ttext\tselected_text\tsentiment", "f8\tso sad today\tsad\tnegative",
                      ("text", None, "sentiment")),
    "pandas index": ("\ttext\tlabel", "0\ta warm film\t1", ("text", None, "label")),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_well_known_headers_need_no_flags(name: str, tmp_path: Path) -> None:
    header, row, expected = SHAPES[name]
    table = read_table(write(tmp_path, "a.tsv", f"{header}\n{row}\n"), needs_label=True)
    assert roles(table) == expected
    assert set(table.columns["how"].values()) == {"name"}  # type: ignore[attr-defined]
    unused = [column for column in header.split("\t") if column and column not in expected]
    assert table.columns["ignored"] == unused


def test_unknown_names_are_found_by_content(tmp_path: Path) -> None:
    rows = [[str(i), text, "gut" if i % 2 else "schlecht"] for i, text in enumerate(LONG)]
    table = read_table(write(tmp_path, "a.csv", csv_text(["nr", "satz", "urteil"], *rows)), needs_label=True)
    assert roles(table) == ("satz", None, "urteil")
    assert table.columns["how"] == {"text": "content", "label": "content"}


def test_unknown_names_of_writing_without_spaces_are_found_by_content(tmp_path: Path) -> None:
    rows = [["x1f9", "这部电影很好看", "好"], ["x2a7", "我不喜欢这个故事", "坏"], ["x3bb", "演员的表现非常好", "好"]]
    table = read_table(write(tmp_path, "a.csv", csv_text(["c1", "c2", "c3"], *rows)), needs_label=True)
    assert roles(table) == ("c2", None, "c3")


def test_a_lone_text_column_needs_no_name_when_no_label_is_needed(tmp_path: Path) -> None:
    assert roles(read_table(write(tmp_path, "a.csv", "satz\nein guter Film\n"), needs_label=False))[0] == "satz"


@pytest.mark.parametrize(
    ("names", "row", "message"),
    [
        (
            ["text", "review", "label"],
            ["one two", "three four", "1"],
            "could be the texts: text, review.*--text-column",
        ),
        (
            ["text", "relatedness_score", "entailment_label"],
            ["a b", "3.5", "NEUTRAL"],
            "could be the labels.*--label-col",
        ),
        (
            ["text", "sentiment", "topic"],
            ["a b", "pos", "film"],
            "labels: sentiment, topic. Choose with --label-column",
        ),
        (["question1", "question2", "sentence1", "sentence2", "label"], ["a b"] * 4 + ["1"], "pairs of texts.*--pair"),
        (["left", "right", "label"], ["one two three", "four five six", "1"], "could be the texts: left, right"),
        (["text", "id"], ["one two", "7"], "no column looks like a label.*id.*--label-column"),
        (["id", "label"], ["17", "1"], "no column looks like a text.*id, label.*--text-column"),
    ],
)
def test_ambiguous_columns_are_refused_with_the_flag(
    names: list[str], row: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path, "a.tsv", tsv(names, row)), needs_label=True)


def test_flags_win_and_a_text_flag_alone_means_one_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", SHAPES["STS-B"][0] + "\n" + SHAPES["STS-B"][1] + "\n")
    one = read_table(path, columns=Columns(text="sentence2"), needs_label=True)
    assert roles(one) == ("sentence2", None, "score")
    assert one.columns["how"] == {"text": "flag", "label": "name"}
    two = read_table(path, columns=Columns(pair="sentence2"), needs_label=True)
    assert roles(two) == ("sentence1", "sentence2", "score")
    assert roles(read_table(path, columns=Columns(label="GENRE"), needs_label=True))[2] == "genre"


def test_what_is_not_named_is_found_beside_what_is() -> None:
    values = {"note": ["a b c", "d e f"], "text": ["g h", "i j"], "label": ["0", "1"]}
    found = choose(values, "made", columns=Columns(pair="note"), needs_label=True)
    assert found == ("text", "note", "label", {"pair": "flag", "text": "name", "label": "name"})
    assert choose(values, "made", needs_label=True).pair is None


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (Columns("sentense"), "--text-column 'sentense' is not a column. Did you mean 'sentence'. Columns: sent"),
        (Columns(label="zzz"), "--label-column 'zzz' is not a column. Columns: sentence, label"),
        (Columns("label", label="label"), "--text-column and --label-column name the same column"),
    ],
)
def test_a_wrong_flag_is_answered_with_the_columns(named: Columns, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "sentence\tlabel\na b\t1\n")
    with pytest.raises(ValueError, match=message):
        read_table(path, columns=named, needs_label=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cola.tsv", "gj04\t1\t\tOur friends won't buy this analysis.\ngj04\t1\t\tOne more and I'm giving up.\n"),
        ("sts.tsv", "main\tMSRvid\t2012test\t0001\t5.000\tA plane is taking off.\tAn air plane is taking off.\n" * 2),
        ("ag.csv", '"3","Wall St. Bears","Reuters - Short sellers"\n"4","Carlyle","Reuters - Private firm"\n'),
        ("mine.tsv", "great film\tpos\nbad film\tneg\nfine film\tpos\n"),
        ("one.csv", "i love this film\nso do i\n"),
        ("frame.csv", "0,1\nso do i,pos\n"),
    ],
)
def test_a_missing_header_is_refused_and_no_row_is_lost(name: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: the first line \(.*\) looks like a row.*Add a header line"):
        read_table(write(tmp_path, name, content), needs_label=False)


def test_column_names_split_into_words() -> None:
    assert [words_of(name) for name in ("reviewText", "#1 String", "airline_sentiment", "textID", "Class Index")] == [
        ["review", "text"],
        ["#1", "string"],
        ["airline", "sentiment"],
        ["text", "id"],
        ["class", "index"],
    ]
