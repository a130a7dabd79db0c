"""Names of the processes that hold roles."""

import pytest
import ray

from rayrlhf.actors.hosts import RewardHost, start_host

pytestmark = pytest.mark.usefixtures("ray_session")


class Echo:
    def say(self, word: str) -> str:
        return word


def start(name: str = "run/reward-0"):  # type: ignore[no-untyped-def]
    return start_host({"echo": Echo}, kind=RewardHost, name=name, cpus=0.0)["echo"]


def test_a_name_finds_its_process_and_a_taken_one_gets_a_number() -> None:
    first, second = start(), start()
    try:
        assert ray.get([first("say", "one"), second("say", "two")]) == ["one", "two"]
        for handle, name in ((first, "run/reward-0"), (second, "run/reward-0-2")):
            assert ray.get_actor(name)._actor_id == handle.host._actor_id
            assert ray.get(handle.host.__repr__.remote()) == name
    finally:
        for handle in (first, second):
            ray.kill(handle.host)


def test_a_process_that_is_ended_leaves_its_name_to_the_next() -> None:
    for _ in range(5):
        handle = start()
        assert ray.get(handle("say", "here")) == "here"
        assert ray.get(handle.host.__repr__.remote()) == "run/reward-0"
        ray.kill(handle.host)
