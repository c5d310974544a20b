"""What can never run is refused with the field's name, and how much may still be made."""

import pytest
from msgspec import structs

from holdfast.domain.fault import BadRequest
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.policy.intake import check, finish_before, rest_tokens

ASKED = Generation(id="g", prompt_ids=[1, 2, 3], max_tokens=10)


@pytest.mark.parametrize(
    ("asked", "param", "told"),
    [
        (structs.replace(ASKED, prompt_ids=[]), "prompt_ids", "prompt_ids is empty: send at least one token"),
        (structs.replace(ASKED, prompt_ids=[1, 99]), "prompt_ids", "token id 99 in prompt_ids is outside"),
        (structs.replace(ASKED, delivered_ids=[-1]), "delivered_ids", "token id -1 in delivered_ids is outside"),
        (structs.replace(ASKED, prompt_ids=[1] * 20), "prompt_ids", "leaves no room in a context of 20"),
        (structs.replace(ASKED, max_tokens=0), "max_tokens", "ask for at least one token"),
        (structs.replace(ASKED, sampling=Sampling(top_p=1.5)), "top_p", "it must lie between 0 and 1"),
        (
            structs.replace(ASKED, sampling=Sampling(logit_bias=((50, 1.0),))),
            "logit_bias",
            "outside the vocabulary of 50",
        ),
    ],
)
def test_what_can_never_run_is_refused_by_field(asked: Generation, param: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as caught:
        check(asked, 50, 20)
    assert caught.value.param == param


def test_bounds_that_are_not_known_bound_nothing() -> None:
    check(structs.replace(ASKED, prompt_ids=[1_000_000] * 100), 0, 0)
    with pytest.raises(BadRequest, match="outside"):
        check(structs.replace(ASKED, prompt_ids=[-1]), 0, 0)


@pytest.mark.parametrize(
    ("delivered", "context", "rest"), [(0, 0, 10), (4, 0, 6), (10, 0, 0), (4, 9, 2), (4, 7, 0), (4, 5, 0)]
)
def test_the_rest_is_bounded_by_max_tokens_and_by_the_context(delivered: int, context: int, rest: int) -> None:
    asked = structs.replace(ASKED, delivered_ids=[5] * delivered)
    assert rest_tokens(asked, context) == rest
    if context:
        assert finish_before(asked, context) is (None if rest else Finish.LENGTH)
