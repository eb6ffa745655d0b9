"""Settings of several sections that do not go together: each is sound by itself, and the training would learn wrong."""

from __future__ import annotations

from pydantic import ValidationError

from vpgea.config.filtering import UtilityConfig
from vpgea.config.schema import PRICE_SPAN, RunConfig
from vpgea.config.training import PRIOR_KL
from vpgea.errors import UsageError


def require_consistent(config: RunConfig) -> None:
    """Refuse what would train something else than it says; before anything is sampled.

    Not part of the schema: what an earlier version wrote with such settings can still be read.

    Raises:
        UsageError: It names the keys.
    """
    if config.distill.kl_form == "dense-cv" and config.distill.is_dense:
        _require_unbiased(config)
    if config.distill.answer_from == "crossview" and not config.filter.answerability.enabled:
        raise UsageError(
            "distill.answer_from=crossview has no answers to learn",
            why="they are continuations that filter.answerability samples, and that check is switched off",
            mend="use distill.answer_from=none, or filter.answerability.enabled=true",
        )
    if config.filter.learns_beginnings and not config.filter.answerability.enabled:
        raise UsageError(
            "filter.note_dependence.dependent=mask cannot judge what it would learn",
            why="whether the beginning of a path leads to the answer is for filter.answerability, and that check is "
            "switched off",
            mend="use filter.note_dependence.dependent=reject, or filter.answerability.enabled=true",
        )
    if config.rollout.noted_prior and config.views.note == "other":
        raise UsageError(
            "rollout.noted_prior cannot have views.note=other",
            why="the filter makes the posterior's prompt of prior samples, and knows no question but their own",
            mend="use views.note=wrong, or rollout.noted_prior=false",
        )
    if config.distill.has_teacher_on_prior:
        _require_noted_prior(config)


def other_reference(config: RunConfig) -> str | None:
    """What is to be said of a loop that starts from an adapter: what is measured against is not what it starts from."""
    training, adapter = config.distill, config.model.adapter
    roles = ["the reference"] * (training.reference_weight > 0)
    roles += ["the frozen teacher"] * (training.runs_teacher and training.teacher == "frozen")
    if training.train != "lora" or adapter is None or not roles:
        return None
    return (
        f"{' and '.join(roles)} is the model without the adapter {adapter}, which the base's figures and reference "
        "lengths are measured with; merge the adapter into the model first to have it in both"
    )


def tempered_control_variate(why: str) -> UsageError:
    """The control variate would be taken under another distribution than the one that the paths were drawn from."""
    return UsageError(
        "distill.kl_form=dense-cv needs paths drawn from the model's own distribution",
        why=f"{why}: its control variate sums over the teacher at temperature 1, and would not cancel",
        mend="sample with rollout.temperature=1, top_p=1 and top_k=0, or use distill.kl_form=sampled",
    )


def _require_unbiased(config: RunConfig) -> None:
    """The terms with b_j cancel in the mean only where the teacher is the sampler, and b_j knows nothing of path j."""
    sampling, teacher = config.rollout, config.distill.teacher
    if sampling.temperature != 1 or sampling.top_p != 1 or sampling.top_k != 0:
        raise tempered_control_variate(
            f"rollout.temperature is {sampling.temperature:g}, top_p {sampling.top_p:g} and top_k {sampling.top_k}"
        )
    if teacher not in ("round", "stored"):
        raise UsageError(
            f"distill.kl_form=dense-cv cannot have distill.teacher={teacher}",
            why="its control variate cancels only under the weights that the paths were drawn from",
            mend="use distill.teacher=round or stored, or distill.kl_form=sampled or dense",
        )
    if config.filter.advantage.group == "joint":
        raise UsageError(
            "distill.kl_form=dense-cv cannot have filter.advantage.group=joint",
            why="in a joint group the gates of a question's other paths depend on the path itself, and do not cancel",
            mend="use filter.advantage.group=prior, or distill.kl_form=sampled",
        )
    if config.filter.advantage.gate == "importance":
        raise UsageError(
            "distill.kl_form=dense-cv cannot have filter.advantage.gate=importance",
            why="the weights of a question's paths are normalised together: the gates of the others depend on the path "
            "itself, and do not cancel",
            mend="use another filter.advantage.gate, or distill.kl_form=sampled",
        )


def _require_noted_prior(config: RunConfig) -> None:
    """The posterior can be the teacher of prior samples that have its prompt, where A does not push away from it."""
    form = config.distill.pg_form
    if not config.rollout.noted_prior:
        raise UsageError(
            f"distill.pg_form={form} has no posterior view of prior samples",
            why="rollout.noted_prior is false, so that they have no prompt with the note",
            mend="set rollout.noted_prior=true before the rollout is drawn",
        )
    kind = config.filter.advantage.kind
    if form in PRIOR_KL and kind not in ("one", "positive"):
        raise UsageError(
            f"distill.pg_form={form} cannot have filter.advantage.kind={kind}",
            why="A weighs a KL, and where it is negative the student would be driven away from the teacher for ever",
            mend="use filter.advantage.kind=one or positive, or distill.pg_form=credited",
        )


def require_followable_price(config: RunConfig) -> None:
    """A loop's price can follow a target where there is one, and tokens are measured on the way.

    Of a whole loop, not of a round, whose price may rest or be anywhere within its bounds.

    Raises:
        UsageError: It cannot; or what it may become is no price of this utility.
    """
    loop, utility = config.loop, config.filter.utility
    if not loop.price_step:
        return
    if loop.token_target is None:
        raise UsageError(
            f"loop.price_step={loop.price_step:g} has nothing to follow",
            why="loop.token_target is not given",
            mend="set loop.token_target to the mean tokens to come to, or loop.price_step=0",
        )
    if utility.length_price == 0:
        raise UsageError(
            f"loop.price_step={loop.price_step:g} cannot have filter.utility.length_price=0",
            why="what is multiplied stays 0: nothing of this objective is priced by its length",
            mend="use an objective with a price above 0, or loop.price_step=0",
        )
    if loop.eval_every > max(loop.rounds - 1, 1):
        raise UsageError(
            f"loop.price_step={loop.price_step:g} cannot have loop.eval_every={loop.eval_every}",
            why=f"of {loop.rounds} rounds none that another one follows is measured",
            mend="measure more often, or use loop.price_step=0",
        )
    highest = PRICE_SPAN * utility.length_price
    try:
        UtilityConfig.model_validate(utility.model_dump() | {"length_price": highest})
    except ValidationError as error:
        raise UsageError(
            f"loop.price_step={loop.price_step:g} cannot have filter.utility.length_price={utility.length_price:g}",
            why=f"it may become {highest:g}, and {error.errors()[0]['msg'].removeprefix('Value error, ')}",
            mend=f"begin with a lower price, or use another filter.utility.kind than {utility.kind}",
        ) from error
