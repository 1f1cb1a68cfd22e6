"""Scenes that change while a model computes, at random: twenty runs of the benchmark that makes as many as wanted."""

from random import Random

import pytest
from benchmarks.scene_digest import run_once


@pytest.mark.parametrize("seed", range(20))
def test_scene_is_what_it_should_be_after_a_run(seed):
    what, _, difference = run_once(Random(seed))
    assert not difference, what
