"""Every option of a run, typed and declared once. Defaults are PEBBLE's on MetaWorld (B-Pref's protocol)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rayrlhf.errors import nearest

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Options(BaseModel):
    """Base of all option groups: unknown keys and wrong types are errors, values never change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class EnvOptions(Options):
    """Which environment, and the protocol it is used under."""

    suite: Literal["metaworld", "gymnasium", "dmc", "toy"] = "metaworld"
    task: str = "drawer-open"
    """`drawer-open` (metaworld), `HalfCheetah-v5` (gymnasium), `cheetah-run` (dmc), `point` (toy)."""
    backend: Literal["python", "envpool"] = "python"
    goal_hidden: bool = True
    """MetaWorld only: zero the goal's part of the observation (B-Pref)."""
    horizon: Positive | None = 500
    """Steps of the agent until an episode is truncated; none: the environment's own limit."""
    action_repeat: Positive = 1
    reward_version: Literal["v1", "v2"] = "v2"
    """MetaWorld only."""
    random_start: bool = True
    """MetaWorld only: objects and goal are drawn anew at each reset; else once, from the seed, for the whole run."""


class SacOptions(Options):
    """Soft actor-critic as PEBBLE uses it (B-Pref's settings for MetaWorld)."""

    hidden: tuple[Positive, ...] = (256, 256, 256)
    normalize_obs: bool = False
    """Actor and critics see observations standardised by the statistics of the random steps (not in the paper's)."""
    layer_norm: bool = False
    """Layer normalisation in the critics (BRO, arXiv 2405.16158; not in the paper's PEBBLE)."""
    batch_size: Positive = 512
    gamma: Fraction = 0.99
    actor_lr: Rate = 3e-4
    critic_lr: Rate = 3e-4
    alpha_lr: Rate = 1e-4
    adam_betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    initial_temperature: Rate = 0.1
    target_entropy: float | None = None
    """What the temperature steers the policy's entropy to; none: minus the number of action dimensions."""
    tau: Fraction = 0.005
    target_update_interval: Positive = 2
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    updates_per_step: Rate = 1.0
    """Gradient updates per environment step of the agent, summed over environments."""
    replay_capacity: Positive = 1_000_000
    precision: Literal["float32", "bfloat16"] = "float32"


class ExploreOptions(Options):
    """What happens before the first question: random steps, then state-entropy exploration (PEBBLE, section 4.1)."""

    seed_steps: NonNegative = 1000
    """Steps with uniformly random actions and without updates."""
    unsupervised_steps: NonNegative = 9000
    neighbours: Positive = 5
    critic_reset_updates: NonNegative = 100
    """Updates on the freshly reset critic after the first labels."""
    save: str | None = None
    """Folder to write the state after the unsupervised phase to."""
    from_: str | None = Field(default=None, alias="from")
    """Folder to start from instead of exploring; environment and networks must match."""

    model_config = ConfigDict(populate_by_name=True)


class RewardOptions(Options):
    """The reward model: an ensemble fitted to labels (Christiano et al. 2017; B-Pref)."""

    members: Positive = 3
    network: str = "mlp"
    """`mlp`, or the dotted path `package.module:Class` of a network of the user's own."""
    hidden: tuple[Positive, ...] = (256, 256, 256)
    output: Literal["tanh", "linear"] = "tanh"
    lr: Rate = 3e-4
    batch_size: Positive = 128
    epochs: Positive = 10
    """At most so many passes over the labels per fit (B-Pref's scripts for MetaWorld). Few labels want more."""
    target_accuracy: Fraction = 0.97
    """A fit ends early once the members' mean accuracy on the labels is above this."""
    normalize_inputs: bool = False
    """Standardise observations by running statistics of the labelled segments."""
    normalize_rewards: bool = False
    """Scale the ensemble's mean to unit standard deviation over the labelled segments."""


class QueryOptions(Options):
    """Which questions are asked, how many, and when."""

    budget: Positive = 4000
    """Labels the run may spend."""
    per_session: Positive = 50
    interval: Positive = 5000
    """Environment steps between two sessions."""
    schedule: Literal["constant", "linear", "exponential", "hyperbolic"] = "constant"
    selection: Literal[
        "uniform", "disagreement", "entropy", "k_center", "k_center_disagreement", "k_center_entropy"
    ] = "disagreement"
    segment_length: Positive = 50
    candidates: Positive = 10
    """Candidate pairs drawn per question asked."""
    recent_episodes: Positive = 100
    """Episodes the trajectory store keeps; questions come from these."""


TEACHERS = ("oracle", "mistake", "noisy", "skip", "myopic", "equal", "random", "silent")


class TeacherOptions(Options):
    """Who answers. The six named teachers are B-Pref's; a field that is set overrides the name's value."""

    name: str = "oracle"
    """`oracle`, `mistake`, `noisy`, `skip`, `myopic`, `equal`: B-Pref's. `random` draws its answers and `silent` never
    answers: the controls of every claim. `package.module:Class` is a teacher of the user's own."""
    beta: float | None = None
    gamma: Fraction | None = None
    mistake: Fraction | None = None
    skip: Fraction | None = None
    equal: Fraction | None = None
    bpref_compat: bool = False
    """Reproduce B-Pref's repeated multiplication of the thresholds after the first session."""
    wait: bool = False
    """Hold training until every open question is answered."""

    @field_validator("name")
    @classmethod
    def _known_or_a_path(cls, name: str) -> str:
        if name not in TEACHERS and ":" not in name:
            wanted = f"wanted one of {', '.join(TEACHERS)}, or 'package.module:Class'"
            raise ValueError(f"teacher.name is {name!r}, {wanted}{nearest(name, TEACHERS)}")
        return name


class RolloutOptions(Options):
    """How experience is collected."""

    actors: NonNegative = 2
    """Ray rollout actors; 0 steps the environments in the driver."""
    envs_per_actor: Positive = 1
    fragment_length: Positive = 50
    """Steps of each environment per fragment."""
    synchronous: bool = False
    """Collect and learn in turn, bit-reproducibly, instead of at the same time."""
    max_staleness: Positive = 2
    """Learner calls between the weights a fragment acted with and its insertion."""


class ResourceOptions(Options):
    """What each role declares to Ray. The defaults fit two cores, under Tune too."""

    learners: NonNegative = 0
    """Remote learners; 0 keeps the learner in the driver."""
    gpus_per_learner: Annotated[float, Field(ge=0.0)] = 0.0
    driver_cpus: Annotated[float, Field(ge=0.0)] = 0.5
    rollout_cpus: Annotated[float, Field(ge=0.0)] = 0.5
    reward_actors: Positive = 1
    reward_cpus: Annotated[float, Field(ge=0.0)] = 0.1
    reward_gpus: Annotated[float, Field(ge=0.0)] = 0.0
    threads: Positive = 1
    """Torch threads of each process."""


class EvaluationOptions(Options):
    """Deterministic evaluation in environments of its own."""

    interval: Positive = 10_000
    episodes: Positive = 10
    final_episodes: Positive = 50
    videos: NonNegative = 1
    """Episodes filmed after the final evaluation."""


class CheckpointOptions(Options):
    interval: Positive = 50_000
    """Environment steps between two checkpoints."""
    keep: Positive = 2


class TrackingOptions(Options):
    tensorboard: bool = True
    wandb: Literal["off", "online", "offline"] = "off"
    wandb_project: str = "rayrlhf"
    log_interval: Positive = 1000
    """Environment steps between two rows of metrics."""


class RunConfig(Options):
    """One run, whole."""

    name: str | None = None
    """The run's folder under `storage_path`; by default made from task, algorithm and seed."""
    storage_path: str = "runs"
    seed: NonNegative = 0
    algorithm: Literal["pebble"] = "pebble"
    mode: Literal["preferences", "oracle"] = "preferences"
    """`oracle` trains on the environment's true reward: the upper bound."""
    total_steps: Positive = 1_000_000
    env: EnvOptions = EnvOptions()
    sac: SacOptions = SacOptions()
    explore: ExploreOptions = ExploreOptions()
    reward: RewardOptions = RewardOptions()
    queries: QueryOptions = QueryOptions()
    teacher: TeacherOptions = TeacherOptions()
    rollout: RolloutOptions = RolloutOptions()
    resources: ResourceOptions = ResourceOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    tracking: TrackingOptions = TrackingOptions()

    @property
    def exploration_steps(self) -> int:
        """Environment steps before the first session."""
        return self.explore.seed_steps + self.explore.unsupervised_steps

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        round_steps = self.rollout.fragment_length * self.rollout.envs_per_actor * max(1, self.rollout.actors)
        if self.sac.replay_capacity < self.exploration_steps + 4 * round_steps:
            raise ValueError(
                f"sac.replay_capacity ({self.sac.replay_capacity}) is too small for exploration: at least "
                f"{self.exploration_steps + 4 * round_steps} rows"
            )
        learners = max(1, self.resources.learners)
        if self.sac.batch_size % learners:
            raise ValueError(
                f"sac.batch_size ({self.sac.batch_size}) cannot be divided among {learners} learners: choose a multiple"
            )
        if self.env.horizon is not None and self.queries.segment_length > self.env.horizon:
            raise ValueError(
                f"queries.segment_length ({self.queries.segment_length}) is longer than "
                f"env.horizon ({self.env.horizon}): no segment would fit an episode"
            )
        if self.total_steps <= self.exploration_steps:
            raise ValueError(
                f"total_steps ({self.total_steps}) leaves nothing after explore.seed_steps + "
                f"explore.unsupervised_steps ({self.exploration_steps})"
            )
        return self
