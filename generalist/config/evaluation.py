"""The section evaluation: what is measured, and by what choices are made."""

from typing import Literal

from pydantic import Field, model_validator

from generalist.config.attacks import AnyThreat, AttackOptions, SelectionAttackOptions, ThreatOptions
from generalist.config.bounds import Count, Many, Width, unused
from generalist.config.condition import Condition
from generalist.config.section import Section


class EvaluationOptions(Section):
    """What is measured. The test split is used once, after all choices; these are made on the validation split."""

    threats: tuple[AnyThreat, ...] = Field(
        min_length=1, description="threats to measure, each by itself and, of several, their union"
    )
    headline: Literal["first", "union"] = Field(
        "first",
        description="what choices and gates go by: the first threat, or the union, where an image must stand in all",
    )
    selection_attack: SelectionAttackOptions = Field(
        SelectionAttackOptions(steps=10),
        description="attack on the validation split, for curves and for the choice of the round",
    )
    pgd: AttackOptions = Field(AttackOptions(steps=50), description="attack on the test split beside the cascade")
    attack: Literal["standard", "plus", "quick"] = Field(
        "standard", description="the cascade on the test split: AutoAttack's standard or plus; quick does not compare"
    )
    extra_attack: bool = Field(
        default=False, description="attack what the cascade leaves once more, for a column of its own (odi-t)"
    )
    square_queries: Count = Field(5000, le=10_000_000, description="queries of Square per image")
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="arithmetic of the cascade's searches; tf32 is float32 on a CPU; verdicts are float32 always",
    )
    images: Many | Literal["all"] = Field(
        "all", description="n images of the test split, chosen by `seed` with the shares of all classes, or all"
    )
    conditions: tuple[Condition, ...] = Field(
        (),
        exclude_if=unused,
        description="values of lambda at which a conditional model is measured; the first is the headline, at which"
        " rounds are chosen",
    )
    widths: tuple[Width, ...] = Field(
        (),
        exclude_if=unused,
        description="widths at which a slimmable model is measured, each at all of `conditions`; the first is the"
        " headline, and model.onnx is of that",
    )
    transfers: bool = Field(
        default=False,
        exclude_if=unused,
        description="attack a conditional or slimmable model at each of its conditions and widths through all others,"
        " too",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the attacks; apart from the training's, so that trainings compare"
    )
    batch_size: Count = Field(
        512, le=1_000_000, description="images at a time in the cascade: a cap on memory, without effect on verdicts"
    )
    shards: Count = Field(
        1, le=10_000, description="tasks that share the images of a learner, without effect on verdicts"
    )

    @property
    def headline_threats(self) -> tuple[ThreatOptions, ...]:
        """The threats in all of which an image must stand to count as robust in choices, gates and headlines."""
        return self.threats if self.headline == "union" else self.threats[:1]

    @model_validator(mode="after")
    def _a_union_is_of_several_norms(self) -> "EvaluationOptions":
        if self.headline == "union" and len(self.threats) == 1:
            raise ValueError(
                "evaluation.headline is union, but evaluation.threats has one alone: add another, or set it to first"
            )
        for key in ("selection_attack", "pgd"):
            if self.headline == "union" and getattr(self, key).step_size is not None:
                raise ValueError(
                    f"evaluation.{key}.step_size is one for all norms of the union, whose radii differ: set it to null,"
                    " and each norm has its own"
                )
        return self
