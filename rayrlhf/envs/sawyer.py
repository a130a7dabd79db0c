"""One MetaWorld task, stepped by MetaWorld's own physics and rewards with less work around them.

MetaWorld spends about half of a step outside MuJoCo. `lean(cls)` restates `SawyerXYZEnv.step` and `.reset` so that
states, observations, rewards and success stay equal bit for bit (tests/envs/test_sawyer.py compares all tasks):

- An episode starts as MetaWorld's benchmarks start it, from one draw held over both passes of `reset`. (Both passes are
  needed: some tasks read where their object is before MuJoCo has computed it anew. With a draw for each pass, as
  MetaWorld does when it is not given one, the reward of such an episode refers to the other draw's object.)
- The first pass only places objects; MetaWorld moves the hand home in it too and forgets that: 250 simulator steps. The
  second pass does not repeat them either where the objects' bodies stand as in the last episode.
- Before a reset the model returns to its file's, so that no episode depends on the one before it.
- A step reads positions through views instead of names and writes observations in place.
- Contacts are looked through as arrays instead of as one Python object each.
"""

from functools import cache
from math import sqrt
from typing import Any, cast

import mujoco
import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from numpy.typing import NDArray

Array = NDArray[np.float64]
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class Lean:
    """Mixed in before a task's class; the attributes without a leading `lean` are MetaWorld's."""

    model: Any
    data: Any

    def __init__(self, *, reward_version: str, goal_hidden: bool) -> None:
        super().__init__(reward_function_version=reward_version)  # type: ignore[call-arg]
        env = cast(SawyerXYZEnv, self)
        # B-Pref's protocol: a new goal each reset, from the environment's own generator instead of NumPy's global one.
        env.seeded_rand_vec, env._set_task_called = True, True
        env._partially_observable = goal_hidden
        del env.sawyer_observation_space  # cached when the goal was still hidden
        space = env.sawyer_observation_space
        self._lean_low, self._lean_high = space.low, space.high
        self._lean_current, self._lean_previous = np.zeros(18), np.zeros(18)
        self._lean_home = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        self._lean_home_bodies = b""
        self._lean_placing = False

    def _initialize_simulation(self) -> tuple[Any, Any]:
        """Takes the views and copies that steps and resets need, as soon as there is a model."""
        model, data = super()._initialize_simulation()  # type: ignore[misc]
        self._lean_hand = data.body("hand").xpos
        self._lean_claws = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._lean_fingers = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos
        self._lean_pads = data.geom("leftpad_geom").id, data.geom("rightpad_geom").id
        self._lean_bodies: dict[str, Array] = {}
        self._lean_pristine = model.body_pos.copy(), model.site_pos.copy()
        self._lean_warnings = data.warning.number
        return model, data

    def lean_reset(self, seed: int) -> Array:
        """The first observation `[39]` of the episode that `seed` names."""
        env = cast(SawyerXYZEnv, self)
        env.seed(seed)
        env.curr_path_length = 0
        self.model.body_pos[:], self.model.site_pos[:] = self._lean_pristine
        self._lean_placing, env._freeze_rand_vec = True, False
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        env.reset_model()
        self._lean_placing, env._freeze_rand_vec = False, True
        mujoco.mj_resetData(self.model, self.data)
        obs = env.reset_model()
        self._lean_warnings[:] = 0
        self._lean_current[:] = obs[:18]
        obs[18:36] = obs[:18]
        return obs

    def lean_step(self, action: NDArray[np.float32]) -> tuple[Array, float, dict[str, Any]]:
        """Observation `[39]`, reward and info after `action` `[4]` in [-1, 1]."""
        env, data = cast(SawyerXYZEnv, self), self.data
        position = data.mocap_pos[0]
        position += action[:3] * env.action_scale
        np.maximum(position, env.mocap_low, out=position)
        np.minimum(position, env.mocap_high, out=position)
        data.mocap_quat[0] = (1.0, 0.0, 1.0, 0.0)
        data.ctrl[:] = (action[3], -action[3])
        mujoco.mj_step(self.model, data, env.frame_skip)
        mujoco.mj_forward(self.model, data)
        if self._lean_warnings.any():
            raise FloatingPointError("the simulation became unstable")
        obs = self._lean_observe()
        reward, info = env.evaluate_state(obs, action)
        return obs, reward, info

    def _lean_observe(self) -> Array:
        """`SawyerXYZEnv._get_obs` and the clipping after it."""
        env = cast(SawyerXYZEnv, self)
        current, previous = self._lean_previous, self._lean_current  # the two buffers change places
        self._lean_current, self._lean_previous = current, previous
        right, left = self._lean_claws
        apart = right - left
        current[:3] = self._lean_hand
        current[3] = min(max(sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        position, quaternion = env._get_pos_objects(), env._get_quat_objects()
        current[4:7], current[7:11] = position[:3], quaternion[:4]
        if len(position) > 3:
            current[11:14], current[14:18] = position[3:], quaternion[4:]
        obs = np.concatenate((current, previous, env._get_pos_goal()))
        np.maximum(obs, self._lean_low, out=obs)  # a hidden goal's bounds are zero
        return cast(Array, np.minimum(obs, self._lean_high, out=obs))

    def _reset_hand(self, steps: int = 50) -> None:
        """Every task's reset begins with this, from a state that the model alone decides."""
        if self._lean_placing:
            super()._reset_hand(0)  # type: ignore[misc]
            return
        bodies = self.model.body_pos.tobytes()
        if bodies != self._lean_home_bodies:
            super()._reset_hand(steps - 1)  # type: ignore[misc]
            mujoco.mj_getState(self.model, self.data, self._lean_home, _STATE)
            self._lean_home_bodies = bodies
        else:
            mujoco.mj_setState(self.model, self.data, self._lean_home, _STATE)
        # The last step is always simulated: what MuJoCo derives (the fingers' positions) is not part of the state.
        super()._reset_hand(1)  # type: ignore[misc]

    def get_body_com(self, body_name: str) -> Array:
        """The body's position, a view `[3]`."""
        view = self._lean_bodies.get(body_name)
        if view is None:
            view = self._lean_bodies[body_name] = self.data.body(body_name).xpos
        return view

    @property
    def tcp_center(self) -> Array:
        """The point between the gripper's fingers `[3]`."""
        right, left = self._lean_fingers
        return cast(Array, (right + left) / 2.0)

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both of the gripper's pads press on the object."""
        contact = self.data.contact
        pairs = contact.geom
        with_object = (pairs == object_geom_id).any(axis=1)
        for pad in self._lean_pads:
            touching = contact.efc_address[with_object & (pairs == pad).any(axis=1)]
            if not touching.size or sum(self.data.efc_force[touching]) <= 0:
                return False
        return True


@cache
def lean(cls: type[SawyerXYZEnv]) -> type[Any]:
    """The task's class with the short cuts of this module."""
    return type(f"Lean{cls.__name__}", (Lean, cls), {})
