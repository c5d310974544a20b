"""The OpenAPI document is sound, names every page that the door answers, and says of answers what they are."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from doorway import Doorway
from openapi_spec_validator import validate

from holdfast.gateway import answers
from holdfast.gateway.openapi import PAGES, described, document
from holdfast.gateway.surfaces import BY_PATH


def test_the_document_is_sound() -> None:
    validate(document())


def test_every_surface_is_in_it() -> None:
    named = {page.path.encode() for page in PAGES}
    for surface in {one.name: one for one in BY_PATH.values()}.values():
        assert named & set(surface.paths), f"{surface.name} is missing in gateway/openapi.py"
