"""The table [student] of a recipe: the family, and the shape as far as the user says it. No torch here."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from compressor.recipe.sections import Section
from compressor.refused import Refused
from exporters.repetition import check_layers, check_repeat
from exporters.small.shape import SMALL, TFIDF

# Keys of [student] that are written only where they say something.
OF_PASSES = ("start_layers", "repeat", "exchange")
OF_SMALL = ("family", "embedding")
OF_TRANSFORMERS = ("pretrained", "layers", "heads", *OF_PASSES)
NOT_OF_COUNTED = ("embedding", "ffn", "init")
Family = Literal["transformer", "recurrent", "convolution", "mean", "static", "tfidf"]
UNTRAINED = ("static", "tfidf")  # families that are made of the teacher, or the rows, at once
Repeat = Annotated[str | tuple[int, ...], BeforeValidator(check_repeat)]


class StudentSection(Section):
    """The student's shape; anything left out is chosen by the byte budget."""

    family: Family | None = Field(
        None, description="transformer, or a small encoder (exporters/small/models.py); None: by the byte budget"
    )
    pretrained: str | None = Field(None, description="folder or hub id of a model that exists: its shape, its weights")
    layers: Annotated[int, Field(gt=0)] | None = None
    hidden: Annotated[int, Field(gt=0)] | None = Field(
        None, description="width; of a small encoder its units, of tfidf pairs"
    )
    heads: Annotated[int, Field(gt=0)] | None = None
    ffn: Annotated[int, Field(gt=0)] | None = Field(None, description="units; of a small encoder its dense layer's")
    embedding: Annotated[int, Field(gt=0)] | None = Field(None, description="columns of a small encoder's token table")
    init: Literal["teacher", "embeddings", "random"] = Field(
        "teacher", description="the start: parts of the teacher, only its embeddings (mapped), or random weights"
    )
    start_layers: Literal["even", "first"] | None = Field(None, description="of the teacher, for the start; None: even")
    repeat: Repeat | None = Field(
        None, description="layers that run again (exporters/repetition.py); None: as they are"
    )
    exchange: bool | None = Field(None, description="exchange query and key when a layer runs again; None: true")

    excludes: ClassVar = {"pretrained": ("layers", "hidden", "heads", "ffn", "init", "start_layers")}
    of_files: ClassVar = ("pretrained",)

    def answered(self) -> tuple[str, ...]:
        """Return what says nothing: beside the answered keys, those of layers that do not repeat."""
        silent = (*OF_PASSES, *OF_SMALL, *(("layers", "heads") if self.is_small else ()))
        unasked = ("init",) if self.is_counted else ()  # it has a default, which says nothing here
        return (*super().answered(), *unasked, *(name for name in silent if getattr(self, name) is None))

    @property
    def is_small(self) -> bool:
        """Whether the student is to be a small encoder."""
        return self.family in SMALL or not self.is_trained

    @property
    def is_counted(self) -> bool:
        """Whether the student is to be counted words under a linear model, which is fitted on labels."""
        return self.family == TFIDF

    @property
    def is_trained(self) -> bool:
        """Whether the student is to be trained, by one stage or more."""
        return self.family not in UNTRAINED

    @model_validator(mode="after")
    def keys_are_of_the_family(self) -> Self:
        """Refuse what only a transformer has beside a small family, and what only a small encoder has without one."""
        beside = self.given(*OF_TRANSFORMERS) if self.is_small else []
        if beside:
            raise Refused(
                f"family={self.family!r} is no transformer and has no {', '.join(beside)}. Leave out {beside[0]}, or "
                "use family='transformer'."
            )
        beside = self.given(*NOT_OF_COUNTED) if self.is_counted else []
        if beside:
            raise Refused(
                f"family={self.family!r} counts words and has no {', '.join(beside)}. Leave out {beside[0]}, or use "
                "family='mean'."
            )
        if self.embedding is not None and not self.is_small:
            raise Refused(
                f"embedding={self.embedding} is the token table of a small encoder. Give family as one of "
                f"{', '.join(SMALL)}, or leave out embedding."
            )
        return self

    @model_validator(mode="after")
    def repeated_layers_exist(self) -> Self:
        """Refuse a list of layers beyond the depth, an exchange of what does not repeat, a start that is not made."""
        if self.repeat is not None and self.layers is not None:
            check_layers(self.repeat, self.layers)
        if self.exchange is not None and self.repeat in (None, "none"):
            said = "true" if self.exchange else "false"
            raise Refused(f"exchange={said} without layers that run again. Give repeat, or leave out exchange.")
        if self.start_layers is not None and self.init != "teacher":
            raise Refused(
                f"start_layers={self.start_layers!r} beside init={self.init!r}, which takes no layers of the teacher. "
                "Leave out start_layers, or use init='teacher'."
            )
        return self

    @model_validator(mode="after")
    def heads_divide_hidden(self) -> Self:
        """Refuse a width that the heads do not divide, with the nearest that works."""
        if self.hidden and self.heads and self.hidden % self.heads:
            down, up = (n * self.heads for n in (self.hidden // self.heads, self.hidden // self.heads + 1))
            fits = max(n for n in range(1, self.heads + 1) if self.hidden % n == 0)
            hidden = up if self.hidden - down > up - self.hidden or down == 0 else down
            raise Refused(
                f"hidden={self.hidden} is not divisible by heads={self.heads}. Use hidden={hidden} or heads={fits}."
            )
        return self
