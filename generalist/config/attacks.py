"""The options of a threat and of an attack."""

import importlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from generalist.config.bounds import Count, Norm, Positive
from generalist.config.section import Section, is_part, part


class ThreatOptions(Section):
    """What the adversary may do to an image: move it within a ball, inside the pixel range; or as a space says."""

    norm: Norm = Field(description="the norm of the ball: linf, l2 or l1; or attributes, localized, with more options")
    eps: Positive = Field(description="radius of the ball, in pixel units (pixels lie in [0, 1]), such as 8/255")

    @model_validator(mode="after")
    def _some_images_lie_outside(self) -> "ThreatOptions":
        self.check_radius()
        return self

    def check_radius(self) -> None:
        """Refuse a radius within which every image lies.

        Raises:
            ValueError: it is such a radius.
        """
        # The geometry costs torch, as other plug-ins do: it is imported when a configuration is read.
        geometry: Any = importlib.import_module("generalist.threats").ball_of(self.norm)
        if self.eps >= geometry.whole_range(math.inf):  # of most norms it hangs on the number of pixels
            hint = f"; did you mean {self.eps.written}/255?" if "/" not in str(self.eps.written) else ""
            raise ValueError(f"an 'eps' of {self.eps.written} allows every image, as pixels lie in [0, 1]{hint}")

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its geometry."""
        return (f"generalist.threats.{self.norm}",)

    @property
    def paths(self) -> tuple[str, ...]:
        """Files and folders that it reads; none of a norm."""
        return ()


def _of_its_file(written: Any) -> Any:
    """Return the options that the file of a space defines; all norms have the same."""
    norm = written.get("norm") if isinstance(written, Mapping) else None
    if not isinstance(norm, str) or not is_part("threats.spaces", norm):
        return written
    return part("threats.spaces", norm, ThreatOptions).model_validate(written)


AnyThreat = Annotated[SerializeAsAny[ThreatOptions], BeforeValidator(_of_its_file)]
"""A threat of the configuration: a norm with its radius, or what another file of threats has as options."""


class AttackOptions(Section):
    """Projected gradient ascent (Madry et al. 2018); `fgsm` is its single full step (Goodfellow et al. 2015)."""

    name: Literal["pgd", "fgsm"] = "pgd"
    steps: Count = Field(10, le=10_000, description="gradient steps actually taken")
    step_size: Positive | None = Field(None, description="pixel units; by default 2.5 eps / steps, and eps for fgsm")
    random_start: bool = Field(True, description="start at a random point of the ball (fgsm: at the image)")

    @model_validator(mode="after")
    def _one_step_is_one_step(self) -> "AttackOptions":
        if self.name == "fgsm" and "steps" in self.model_fields_set and self.steps != 1:
            raise ValueError("fgsm takes one step: leave 'steps' out, or name the attack pgd")
        return self


class SelectionAttackOptions(AttackOptions):
    """Attack of the validation split: one of those that train, or a quick cascade (`quick`), which is stronger."""

    name: Literal["pgd", "fgsm", "quick"] = "pgd"  # type: ignore[assignment]  # one name more

    @model_validator(mode="after")
    def _quick_has_its_own_steps(self) -> "SelectionAttackOptions":
        given = ", ".join(sorted(self.model_fields_set - {"name"}))
        if self.name == "quick" and given:
            raise ValueError(
                f"quick has settings of its own: leave {given} out, as in 'selection_attack: {{name: quick}}'"
            )
        return self
