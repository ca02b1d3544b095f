"""Tokenizers of four kinds, made in memory, and awkward text in many scripts, for the tests of vocab/."""

import io
import json
import string
from functools import cache

import sentencepiece
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vocab.surfaces import Kind
from vocab.train import train_vocabulary

LINES = [
    "the film is a wonderful story about people who can't quite leave the city , and it moves .",
    "a dull , tedious and lifeless thriller ; its plot turns out to be 2 hours of nothing !",
    "she said : the director's first movie ( 1998 ) was clever , funny , touching and honest .",
    "Der Film erzählt eine schöne Geschichte über Menschen in Köln , groß und bewegend .",
    "Le cinéma français a de très beaux rôles , où l'on rêve et l'on pleure à la fin .",
    "Фильм рассказывает о жизни людей в большом городе и о любви .",
    "Η ταινία είναι μια ιστορία για τους ανθρώπους της πόλης .",
    "这 部 电 影 讲 述 了 一 个 美 丽 的 故 事 。",
    "映画 は とても 面白い 物語 です 。 ﾊﾝｶｸ",
    "यह फिल्म शहर के लोगों की एक सुंदर कहानी है ।",
    "هذا الفيلم قصة جميلة عن الناس في المدينة .",
    "הסרט הוא סיפור יפה על אנשים בעיר .",
    "영화 는 도시 사람들 의 아름다운 이야기 입니다 .",
    "phim này kể một câu chuyện đẹp về thành phố .",
    "great movie 😀 👍 loved it ❤ — “really” … 100 % €5 №7",
]
STEMS = (
    "play",
    "move",
    "watch",
    "laugh",
    "dream",
    "sing",
    "paint",
    "build",
    "speak",
    "walk",
    "thrill",
    "charm",
    "light",
)
ENDINGS = ("", "s", "ed", "ing", "er", "ers", "ful", "less", "ness", "able")
FORMED = [before + stem + end for before in ("", "un", "re", "over") for stem in STEMS for end in ENDINGS]
# Every word another number of times, as in real text.
CORPUS = [f"{line} {other}" for line in LINES for other in LINES[:6]]
CORPUS += [" ".join(FORMED[first :: 1 + first % 7][:40]) for first in range(200)]
KINDS = ("wordpiece", "unigram", "bpe")
SIZE = 650

WORDS = [
    *(
        "wonderful",
        "moviegoer",
        "don't",
        "naïve",
        "na\u0308ive",
        "Straße",
        "ΣΊΣΥΦΟΣ",
        "Ёлка",
        "İstanbul",
        "ﬁne",
        "½",
        "①",
    ),
    *("电影", "𠀀𪚥", "ﾊﾝｶｸ", "ガ", "한국어", "\u1112\u1161\u11ab", "हिन्दी", "क्षि", "العربيّة", "שָׁלוֹם", "ไทย", "đẹp"),
    *("👩\u200d👩\u200d👧", "❤\ufe0f", "🇩🇪", "👍🏽", "a\u200bb", "a\u00adb", "\ufeff", "\u202eabc", "x\u0000y", "\x07"),
    *("\x85", "\x1c", "\u2028", "\u00a0", "\u3000", "\ufffd", "\ue000", "▁", "▁▁a", "Ġ", "##ing", "<0x41>", "[SEP]"),
    *("[MASK]", "</s>", "<mask>", "<unk>", "[CLS] x", "a" * 99, "b" * 100, "c" * 101, "d" * 250, "é" * 60, "...", "--"),
    "http://x.y/z?q=1#a",
]
ALPHABETS = (
    string.printable,
    "áéíóúüñçßøåæœ",
    "e\u0301\u0308\u0327\u0323o",
    "电影故事讲述了的𠀀𪚥",
    "映画はとてもｶﾞギ",
    "हिन्दी क्षि्ा",
    "العربية ًّ",
    "абвгдёЙ",
    "αβγςσΣά",
    "한국어\u1112\u1161\u11ab",
    "😀👍🏽\u200d👩❤\ufe0f🇩🇪",
    "\x00\x07\x1c\x85\u200b\u00ad\ufeff\u2028",
)
AWKWARD = st.lists(
    st.one_of(st.sampled_from(WORDS), *(st.text(alphabet, max_size=12) for alphabet in ALPHABETS), st.text(max_size=8)),
    max_size=6,
).flatmap(lambda pieces: st.sampled_from(["", " "]).map(lambda glue: glue.join(pieces)))
AWKWARD_TEXTS = ["", " ", "  \t\n ", *WORDS, " ".join(WORDS), "".join(WORDS), *LINES, *(f"x{word}y" for word in WORDS)]


@cache
def bert(*, is_lower: bool = True) -> Tokenizer:
    """A WordPiece teacher as BERT's are: [PAD] 0, unused tokens, the other special ones at 100 and up."""
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=is_lower)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=1100, special_tokens=["[UNK]"], show_progress=False)
    learner.train_from_iterator(CORPUS, trainer)
    learned = sorted(set(learner.get_vocab()) - {"[UNK]"})
    letters = [token for token in learned if len(token.removeprefix("##")) == 1]
    # Like the real ones: every letter also as a continuation, even those that no text can bring there.
    letters += [f"##{letter}" for letter in letters if not letter.startswith("##")]
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += list(dict.fromkeys([*letters, *"ABCñ", "##A", "##ñ", *learned]))
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = learner.normalizer, learner.pre_tokenizer
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    tokenizer.enable_truncation(128)
    return tokenizer


@cache
def roberta() -> Tokenizer:
    """A byte-level BPE teacher as RoBERTa's are."""
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=800,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return tokenizer


@cache
def xlmr() -> Tokenizer:
    """A Unigram teacher as XLM-R's are: compiled normaliser, <s> <pad> </s> <unk> first, <mask> last."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=900, character_coverage=1.0, num_threads=1,
        normalization_rule_name="nmt_nfkc", bos_id=-1, eos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    vocab = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocab += [(piece.piece, piece.score) for piece in list(proto.pieces)[1:]] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def teacher(name: str) -> Tokenizer:
    """Return a fresh copy of a teacher by name, so that no test changes another's."""
    made = {"bert": bert, "bert-cased": lambda: bert(is_lower=False), "roberta": roberta, "xlmr": xlmr}[name]()
    return Tokenizer.from_str(made.to_str())


@cache
def student(name: str, kind: Kind) -> Tokenizer:
    """Return the student of ``SIZE`` tokens that a teacher gets; do not change it."""
    return train_vocabulary(CORPUS, SIZE, kind, teacher(name))


def unknown_id(tokenizer: Tokenizer) -> int:
    """Return the id of the unknown token, -1 where there is none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    found = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return -1 if found is None else found


def newly_unknown(student: Tokenizer, teacher: Tokenizer, texts: list[str]) -> list[str]:
    """Return the texts that the teacher reads whole and the student does not."""
    ours, theirs = unknown_id(student), unknown_id(teacher)
    teacher.no_truncation()
    pairs = zip(student.encode_batch(texts), teacher.encode_batch(texts), texts, strict=True)
    return [text for mine, other, text in pairs if ours in mine.ids and theirs not in other.ids and "<unk>" not in text]
