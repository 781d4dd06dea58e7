"""Attributes of an application that its members share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.waiting import wait_until
from tribes.config.managers import AttributesConfig, ContextConfig
from tribes.config.model import NodeConfig
from tribes.errors import AttributeNotEncodableError, LocalProtocolError
from tribes.runtime.attributes import ApplicationAttributes
from tribes.runtime.background import BackgroundNode

from .test_replicated_map import running

MakeConfig = Callable[..., NodeConfig]


def test_t111_attributes_of_an_application_are_on_every_member(make_config: MakeConfig) -> None:
    """Set on one it is seen on the other, and by a late one; None removes; what cannot be encoded
    stays here without an error, and hides the others' value.
    """
    a, b, late = (BackgroundNode(make_config(name)) for name in ("a", "b", "c"))
    one, two = ApplicationAttributes(a, "shop"), ApplicationAttributes(b, "shop")
    other = ApplicationAttributes(b, "blog")
    with running(a, b):
        wait_until(lambda: one.members == ("b",))
        assert one.put("rate", 0.25).acked == ("b",)
        assert two["rate"] == 0.25
        assert dict(other) == {}
        three = ApplicationAttributes(late, "shop")
        late.start()
        try:
            assert late.wait_joined(20)
            assert dict(three) == {"rate": 0.25}
        finally:
            late.stop()
        two["mine"] = thing = object()
        two["rate"] = thing
        assert (two["mine"], two["rate"], set(two)) == (thing, thing, {"mine", "rate"})
        assert dict(one) == {"rate": 0.25}
        with pytest.raises(AttributeNotEncodableError):
            two.put("mine", thing)
        two["rate"] = 2
        wait_until(lambda: one.get("rate") == 2)
        one["rate"] = None
        one["nothing"] = None
        wait_until(lambda: set(two) == {"mine"})
        del two["mine"]
        assert "mine" not in two
        with pytest.raises(KeyError):
            del two["mine"]
        with pytest.raises(LocalProtocolError, match="None removes"):
            one.put("rate", None)


@pytest.mark.parametrize(("options", "waits"), [(8, False), (6, True)])
def test_the_send_options_are_the_contexts(
    make_config: MakeConfig, options: int, waits: bool
) -> None:
    own = ContextConfig(attributes=AttributesConfig(map_send_options=options))
    made: list[Any] = []
    for name in ("a", "b"):
        config = msgspec.structs.replace(make_config(name), context={"shop": own})
        node = BackgroundNode(config)
        made += [node, ApplicationAttributes(node, "shop")]
    a, one, b, _ = made
    with running(a, b):
        wait_until(lambda: one.members == ("b",))
        assert one.put("k", 1).acked == (("b",) if waits else ())
