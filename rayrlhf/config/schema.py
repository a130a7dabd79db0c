"""Every option of a run, typed and declared once. Defaults are PEBBLE's on MetaWorld (B-Pref's protocol)."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from rayrlhf.config.options import Decay, Fraction, Gpus, NonNegative, NonNegativeFloat, Options, Positive, Rate
from rayrlhf.config.people import PeopleOptions, QueueOptions
from rayrlhf.config.tasks import tasks_in
from rayrlhf.errors import nearest


class EnvOptions(Options):
    """Which environment, and the protocol it is used under."""

    suite: Literal["metaworld", "gymnasium", "dmc", "toy"] = "metaworld"
    """Whose task it is: MetaWorld v3, any Gymnasium id, DeepMind Control, or the point mass that learns in seconds."""
    task: str = "drawer-open"
    """`drawer-open` (metaworld), `HalfCheetah-v5` (gymnasium), `cheetah-run` (dmc), `point` (toy). Several with commas
    between them, or a set of MetaWorld's (`mt10`, `ml10-train`, `ml10-test`): each environment takes them in turn,
    one an episode."""
    encoder: str | None = None
    """What turns each task's instruction into numbers, which observations end with: a model of sentence-transformers
    on this machine, such as `all-MiniLM-L6-v2` (extra `language`), or `hashing`, which knows letters only; none: tasks
    are not named."""
    instruction_width: Positive = 16
    """How many numbers: the embedding's, by a fixed random projection."""
    wordings: Annotated[int, Field(ge=1, le=6)] = 6
    """Ways to say each instruction of which every episode draws one; 1: the same sentence always."""
    backend: Literal["python", "envpool"] = "python"
    """MetaWorld only: MuJoCo stepped from Python, or EnvPool's C++ (extra `fast`; no V1 rewards, no fixed start)."""
    threads: Positive = 1
    """EnvPool only: threads that step the environments of one actor; `resources.rollout_cpus` should count them."""
    goal_hidden: bool = True
    """MetaWorld only: zero the goal's part of the observation (B-Pref)."""
    horizon: Positive | None = 500
    """Steps of the agent until an episode is truncated; none: the environment's own limit."""
    action_repeat: Positive = 1
    """Simulator steps per step of the agent; rewards are summed, successes joined."""
    reward_version: Literal["v1", "v2"] = "v2"
    """MetaWorld only."""
    random_start: bool = True
    """MetaWorld only: objects and goal are drawn anew at each reset; else once, from the seed, for the whole run."""

    @field_validator("task")
    @classmethod
    def _names_tasks(cls, task: str) -> str:
        tasks_in(task)
        return task

    @property
    def tasks(self) -> tuple[str, ...]:
        """What `task` names, each once."""
        found = tasks_in(self.task)
        if self.suite != "metaworld":
            return found
        return tuple(dict.fromkeys(task.removesuffix("-v3") for task in found))

    @property
    def said_width(self) -> int:
        """How many numbers of each observation are the instruction."""
        return 0 if self.encoder is None else self.instruction_width

    def only(self, number: int) -> "EnvOptions":
        """The same with one of the tasks, and without its instruction."""
        return self.model_copy(update={"task": self.tasks[number], "encoder": None})


class SacOptions(Options):
    """Soft actor-critic as PEBBLE uses it (B-Pref's settings for MetaWorld); PrefPPO has none of it."""

    hidden: tuple[Positive, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    layer_norm: bool = False
    """Layer normalisation in the critics (BRO, arXiv 2405.16158; not in the paper's PEBBLE)."""
    critic_hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Widths of the critics' hidden layers, where they are others than the actor's."""
    critic_blocks: NonNegative = 0
    """Critics of so many residual blocks, each of two normalised layers (BRO), of the first width; 0: an MLP."""
    n_step: Positive = 1
    """Rewards summed up before the target critic's value (arXiv 1710.02298, section 3); more spread faster."""
    reset_interval: Positive | None = None
    """Updates after which actor and critics start anew, the replay stays (arXiv 2205.07802); none: never."""
    batch_size: Positive = 512
    """Transitions per update, over all learners."""
    recent_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of each batch that is drawn from the newest `queries.recent_episodes` episodes, as long as labels are to
    come (hybrid replay of QPA, arXiv 2305.17400, which has 0.5)."""
    gamma: Fraction = 0.99
    """Discount per step of the agent."""
    actor_lr: Rate = 3e-4
    """Adam's learning rate of the actor."""
    critic_lr: Rate = 3e-4
    """Adam's learning rate of the critics."""
    alpha_lr: Rate = 1e-4
    """Adam's learning rate of the temperature's logarithm."""
    adam_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's decay rates, of all three optimisers."""
    initial_temperature: Rate = 0.1
    """Weight of the entropy at the start; it adapts (Haarnoja et al. 2018, arXiv 1812.05905, section 5)."""
    target_entropy: float | None = None
    """What the temperature steers the policy's entropy to; none: minus the number of action dimensions."""
    tau: Fraction = 0.005
    """How far the target critics move towards the critics each time."""
    target_update_interval: Positive = 2
    """Updates from one move of the target critics to the next."""
    log_std_min: float = -5.0
    """Lower bound of the policy's log standard deviation, before the squash."""
    log_std_max: float = 2.0
    """Its upper bound."""
    updates_per_step: Rate = 1.0
    """Gradient updates per environment step of the agent, summed over environments."""
    replay_capacity: Positive = 1_000_000
    """Transitions the replay holds, over all learners; the oldest go first."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products in an update; parameters and optimisers are float32 always."""


class PpoOptions(Options):
    """Proximal policy optimisation as PrefPPO uses it (B-Pref's settings for MetaWorld); PEBBLE has none of it."""

    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] = (256, 256, 256)
    """Widths of the hidden layers of actor and critic."""
    normalize_observations: bool = True
    """Standardise observations by running statistics of all that were seen; the policy takes them with it."""
    batch_size: Positive = 128
    """Steps per minibatch, over all learners."""
    epochs: Positive = 20
    """Passes over each iteration's steps, of which there are `rollout.fragment_length` in each environment."""
    explore_epochs: Positive = 50
    """The same during the unsupervised phase."""
    gamma: Fraction = 0.99
    """Discount per step of the agent."""
    gae_lambda: Fraction = 0.92
    """Bias against variance of the advantages (Schulman et al. 2016, arXiv 1506.02438)."""
    clip: Rate = 0.4
    """How far from 1 the ratio of probabilities may move with a gain, at the start."""
    clip_decay: bool = True
    """Whether it falls linearly, to 0 at the last step."""
    kl_coefficient: NonNegativeFloat = 0.0
    """Weight of a penalty on the divergence from the policy that collected, at the start; 0: none."""
    kl_target: Rate = 0.01
    """Divergence, in nats, that the weight adapts to."""
    lr: Rate = 3e-4
    """Adam's learning rate."""
    initial_log_std: float = 0.0
    """Logarithm of the policy's standard deviation at the start."""
    value_coefficient: Rate = 0.5
    """Weight of the critic's loss."""
    entropy_coefficient: NonNegativeFloat = 0.0
    """Weight of the policy's entropy."""
    max_grad_norm: Rate = 0.5
    """Longer gradients are shortened to this."""
    normalize_advantage: bool = True
    """Whether the advantages of each minibatch have mean 0 and standard deviation 1."""


class ExploreOptions(Options):
    """What happens before the first question: random steps, then state-entropy exploration (PEBBLE, section 4.1)."""

    seed_steps: NonNegative = 1000
    """PEBBLE only: steps with uniformly random actions and without updates."""
    unsupervised_steps: NonNegative = 9000
    """Steps rewarded by state entropy after those."""
    neighbours: Positive = 5
    """The state entropy of a state follows from the distance to its so many-th nearest neighbour."""
    spread_weight: NonNegativeFloat = 0.0
    """Weight, at the first step, of a bonus for disagreement: the members' standard deviation of a step's reward, added
    to their mean (RUNE, arXiv 2205.12401, which has 0.05); 0: none."""
    spread_decay: Decay = 1e-5
    """Share of the bonus' weight that goes with each environment step (RUNE)."""
    reset_critic: bool = True
    """Whether the critic starts anew when the reward first means something (PEBBLE, section 4.2); RIME's goes on."""
    critic_reset_updates: NonNegative = 100
    """PEBBLE only: updates on the freshly reset critic after the first labels."""
    save: str | None = None
    """Folder to write the state after the unsupervised phase to."""
    from_: str | None = Field(default=None, alias="from")
    """Folder to start from instead of exploring; environment and networks must match."""

    model_config = ConfigDict(populate_by_name=True)


class RewardOptions(Options):
    """The reward model: an ensemble fitted to labels (Christiano et al. 2017; B-Pref)."""

    members: Positive = 3
    """Networks in the ensemble."""
    network: str = "mlp"
    """`mlp`, or the dotted path `package.module:Class` of a network of the user's own."""
    hidden: tuple[Positive, ...] = (256, 256, 256)
    """Widths of the hidden layers of each."""
    output: Literal["tanh", "linear"] = "tanh"
    """What bounds the reward of a step: `tanh` keeps it within [-1, 1]."""
    lr: Rate = 3e-4
    """Adam's learning rate."""
    batch_size: Positive = 128
    """Labels per step of a fit."""
    epochs: Positive = 10
    """At most so many passes over the labels per fit (B-Pref's scripts for MetaWorld). Few labels want more."""
    target_accuracy: Fraction = 0.97
    """A fit ends early once the members' mean accuracy on the labels is above this."""
    normalize_inputs: bool = False
    """Standardise observations by running statistics of the labelled segments, or by the policy's, if it keeps some
    (PrefPPO)."""
    label_smoothing: Decay = 0.0
    """Moves labels so far from certainty towards equal: against teachers who err (arXiv 1512.00567, section 7)."""
    crop: NonNegative = 0
    """Segments are cut so many steps shorter to longer, at random, each time they are learnt from (SURF, arXiv
    2203.10050, which has 5): as many steps of context are kept on either side of what is asked about."""
    unlabelled: NonNegative = 0
    """Pairs that nobody was asked about in each step of a fit, for each label in it; the members' own prediction is
    their label where they are sure of it (SURF, which has 4); 0: none."""
    unlabelled_confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.99
    """How probable a side must be for that (SURF)."""
    unlabelled_weight: Rate = 1.0
    """Weight of such pairs' loss (SURF)."""
    denoise: bool = False
    """Leave out labels that the ensemble finds improbable, turn round those that it is sure are wrong: for teachers who
    err (RIME, arXiv 2402.17257)."""
    denoise_alpha: Fraction = 0.5
    """How far the threshold follows the largest divergence of a trusted label (RIME)."""
    denoise_beta: tuple[Rate, Rate] = (3.0, 1.0)
    """Standard deviations of the trusted labels' divergences added to the threshold, at first and at last (RIME)."""
    denoise_epochs: Positive = 600
    """Epochs, over all fits, over which the first becomes the last (RIME's code: 600 on MetaWorld, 60 on DMC)."""
    denoise_flip: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.001
    """Labels less probable than this are turned round (RIME)."""
    pretrain_epochs: NonNegative = 0
    """PEBBLE only: passes over the explored transitions in which the members learn the state entropy, before the first
    label (warm start of RIME, arXiv 2402.17257, section 4.2)."""
    meta_interval: Positive | None = None
    """PEBBLE only: environment steps between two steps of the ensemble by what the critic makes of it, whose values of
    the newest labels' first steps should predict them (MRN, NeurIPS 2022), while labels are to come; none: never."""
    meta_weight: Rate = 0.1
    """Weight of that loss (MRN)."""
    warm_start: bool = True
    """A fit goes on from the one before it (B-Pref); else the members start anew each time."""
    normalize_rewards: bool = False
    """Scale the ensemble's mean to unit standard deviation over the labelled segments."""
    few_shot: str | None = None
    """Weights from which few labels of a new task lead far, by `rayrlhf pretrain`, where each fit begins (Hejna &
    Sadigh 2022, arXiv 2212.03363); options and widths must match."""
    adaptation: Literal["inner", "adam"] = "inner"
    """With `few_shot`: `inner`, gradient descent with the learnt rates from there at each fit; or `adam`, the paper's
    init baseline: they are where the first fit begins, and all goes on as it does without."""
    from_: str | None = Field(default=None, alias="from")
    """A fixed reward model instead of questions: what `rayrlhf fit` wrote, or a run or a checkpoint whose ensemble is
    taken; options and widths must match."""

    model_config = ConfigDict(populate_by_name=True)

    @property
    def fits_anew(self) -> bool:
        """Whether a fit forgets what those before it have taught."""
        return not self.warm_start or (self.few_shot is not None and self.adaptation == "inner")


class QueryOptions(Options):
    """Which questions are asked, how many, and when."""

    budget: Positive = 4000
    """Labels the run may spend."""
    per_session: Positive = 50
    """Labels per session while the schedule is constant; otherwise its mean."""
    interval: Positive = 5000
    """Environment steps between two sessions."""
    schedule: Literal["constant", "linear", "exponential", "hyperbolic"] = "constant"
    """How the budget is dealt out over the sessions: evenly, or more at the beginning."""
    selection: Literal[
        "uniform", "disagreement", "entropy", "k_center", "k_center_disagreement", "k_center_entropy"
    ] = "disagreement"
    """Which candidates become questions (B-Pref, section 3.3)."""
    segment_length: Positive = 50
    """Steps of the agent in each of the two clips."""
    candidates: Positive = 10
    """Candidate pairs drawn per question asked."""
    recent_episodes: Positive = 100
    """Episodes the trajectory store keeps; questions come from these."""


SCRIPTED = ("oracle", "mistake", "noisy", "skip", "myopic", "equal")
TEACHERS = (*SCRIPTED, "mixture", "random", "silent", "human")
MIXABLE = (*SCRIPTED, "random")


class TeacherOptions(Options):
    """Who answers. The six named teachers are B-Pref's; a field that is set overrides the name's value."""

    name: str = "oracle"
    """`oracle`, `mistake`, `noisy`, `skip`, `myopic`, `equal`: B-Pref's. `mixture`: several of them. `random` draws its
    answers and `silent` never answers: the controls of every claim. `human`: people, on a page in the browser. A
    teacher of the user's own is `package.module:Class`, or what its package calls it. `--teacher NAME` is short for
    it."""
    mixture: dict[str, Rate] = Field(default_factory=dict)
    """Weights of several teachers by name, such as {oracle: 0.7, mistake: 0.2, random: 0.1}: each question is answered
    by one of them, drawn by these. They need not sum to 1; `teacher.name` is `mixture` then, unless told otherwise."""
    beta: float | None = None
    """Rationality: above 0 the teacher samples from the Bradley-Terry probability, else it takes the larger sum."""
    gamma: Fraction | None = None
    """Below 1 the last steps of a clip count most (myopic)."""
    mistake: Fraction | None = None
    """Probability of the opposite answer."""
    skip: Fraction | None = None
    """Skips where neither clip's true return exceeds this share of the typical one."""
    equal: Fraction | None = None
    """Says equal where the true returns differ by less than this share of the typical one."""
    blur: NonNegativeFloat | None = None
    """How far it misjudges each clip's return, as a share of the typical one: the standard deviation of an error that
    turns answers round, half of them where returns are alike, few where they differ much (Thurstone 1927, case V)."""
    fatigue: NonNegativeFloat | None = None
    """Added to the probability of the opposite answer with each question of a session, as far as one half."""
    session_fatigue: NonNegativeFloat | None = None
    """The same with each session."""
    bpref_compat: bool = False
    """Reproduce B-Pref's repeated multiplication of the thresholds after the first session."""
    wait: bool = False
    """Hold training until every open question is answered."""
    clips: bool = False
    """Record what clips are drawn from, for a teacher of the user's own that looks at them."""

    @property
    def title(self) -> str:
        """Who answers, in words: with a mixture's shares, and with what is set beside the name."""
        total = sum(self.mixture.values())
        details = [f"{name} {weight / total:.3g}" for name, weight in self.mixture.items()]
        details += [f"{name} {value:g}" for name, value in self.overrides().items()]
        return f"{self.name} ({', '.join(details)})" if details else self.name

    def overrides(self) -> dict[str, float]:
        """The parameters that are set over what the name stands for."""
        unset = [name for name, field in type(self).model_fields.items() if field.default is None]
        return {name: getattr(self, name) for name in unset if getattr(self, name) is not None}

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_mixture(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mixture") and "name" not in values:
            return {**values, "name": "mixture"}
        return values

    @model_validator(mode="after")
    def _whole_mixture(self) -> "TeacherOptions":
        if self.mixture and self.name != "mixture":
            raise ValueError(f"teacher.mixture wants teacher.name mixture, not {self.name}: change one of the two")
        if self.name == "mixture" and not self.mixture:
            raise ValueError("teacher.name mixture wants teacher.mixture, such as {oracle: 0.8, mistake: 0.2}")
        for name in self.mixture:
            if name not in MIXABLE:
                raise ValueError(f"teacher.mixture names {name!r}, {_why_unmixed(name)}")
        return self


def _why_unmixed(name: str) -> str:
    wanted = f"wanted some of {', '.join(MIXABLE)}"
    if name == "silent":
        return f"whose questions would stay open for ever; {wanted}"
    if name == "human":
        return f"who answer through a queue, all questions or none; {wanted}"
    if ":" in name:
        return f"and a teacher of your own answers all questions or none; {wanted}"
    return f"{wanted}{nearest(name, MIXABLE)}"


class RolloutOptions(Options):
    """How experience is collected."""

    actors: NonNegative = 2
    """Ray rollout actors; 0 steps the environments in the driver."""
    envs_per_actor: Positive = 1
    """Environments that step together in each rollout actor."""
    fragment_length: Positive = 50
    """Steps of each environment per fragment."""
    synchronous: bool = False
    """Collect and learn in turn, bit-reproducibly, instead of at the same time."""
    max_staleness: Positive = 2
    """Learner calls between the weights a fragment acted with and its insertion; an actor far slower than the others is
    not waited for, and may pass it."""
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 300.0
    """A rollout actor that has not returned a fragment after so long, or so long for each episode of an evaluation,
    hangs: it is started anew."""

    @property
    def envs(self) -> int:
        """Environments of all actors."""
        return max(1, self.actors) * self.envs_per_actor

    @property
    def round_steps(self) -> int:
        """Environment steps of one fragment from each actor."""
        return self.envs * self.fragment_length


class ResourceOptions(Options):
    """What each role declares to Ray, and the threads it uses. The defaults are for two cores."""

    learners: NonNegative = 0
    """Remote learners; 0 keeps the learner in the driver."""
    learner_cpus: Annotated[float, Field(ge=0.0)] = 1.0
    """CPUs declared for each remote learner."""
    gpus_per_learner: Gpus = 0.0
    """GPUs, or a share of one, for each learner; 0: learning is on the CPU."""
    driver_cpus: Annotated[float, Field(ge=0.0)] = 0.5
    """CPUs declared for the driver, with the learner where it lives there."""
    rollout_cpus: Annotated[float, Field(ge=0.0)] = 0.5
    """CPUs declared for each rollout actor."""
    reward_actors: Positive = 1
    """Processes over which the members of the reward model are spread; no more than reward.members."""
    reward_cpus: Annotated[float, Field(ge=0.0)] = 0.1
    """CPUs declared for each of them."""
    reward_gpus: Gpus = 0.0
    """GPUs, or a share of one, for each of them."""
    renderer_cpus: Annotated[float, Field(ge=0.0)] = 0.1
    """CPUs declared for the process that draws clips, where they are looked at."""
    gradient_parts: Positive = 1
    """Parts of a learner's batch that are computed one after another, their gradients added up: a batch that a GPU's
    memory does not hold."""
    rollout_on: str | None = None
    """A resource of the cluster's own that marks the nodes for rollout actors, such as spot nodes; none: any node."""
    durable_on: str | None = None
    """One that marks the nodes for every other process, which should not vanish; none: any node."""
    wait_minutes: Annotated[float, Field(ge=0.0)] = 0.0
    """How long to wait for a cluster to have room, since it grows or other runs end; 0: a run that does not fit is
    refused at once."""
    threads: Positive = 1
    """Torch threads of the driver, of each learner and of each reward actor; rollout actors have one."""
    member_threads: Positive | None = None
    """Members of the reward model that a reward actor fits, and a learner relabels with, at the same time, each in a
    thread; none: as many as help on the cores there are."""

    @field_validator("rollout_on", "durable_on")
    @classmethod
    def _a_mark(cls, name: str | None) -> str | None:
        if name is not None and (not name or name in ("CPU", "GPU", "memory", "object_store_memory")):
            raise ValueError("the name of a resource that the cluster's nodes were given, not one that Ray counts")
        return name


class EvaluationOptions(Options):
    """Deterministic evaluation in environments of its own."""

    interval: Positive = 10_000
    """Environment steps between two evaluations."""
    episodes: Positive = 10
    """Episodes of each."""
    final_episodes: Positive = 50
    """Episodes after training; what they say is the run's result."""
    videos: NonNegative = 1
    """Episodes filmed after the final evaluation, one after another."""


class CheckpointOptions(Options):
    """When the run is saved."""

    interval: Positive = 50_000
    """Environment steps between two checkpoints."""
    seconds: Annotated[float, Field(gt=0.0)] | None = None
    """Seconds after which there is one at the latest; none: steps alone decide."""
    keep: Positive = 2
    """Newest checkpoints that stay; older ones are deleted."""


class TrackingOptions(Options):
    """Where metrics go besides `metrics.jsonl`."""

    tensorboard: bool = True
    """Write TensorBoard events into the run's folder."""
    wandb: Literal["off", "online", "offline"] = "off"
    """Weights & Biases: off, sent as they come, or kept in the run's folder for `wandb sync`."""
    wandb_project: str = "rayrlhf"
    """Project of Weights & Biases."""
    log_interval: Positive = 1000
    """Environment steps between two rows of metrics."""


class RunConfig(Options):
    """One run, whole."""

    name: str | None = None
    """The run's folder under `storage_path`; by default made from task, algorithm and seed."""
    storage_path: str = "runs"
    """Folder in which each run has its own: on this machine, mounted, or a URL such as `s3://bucket/runs`."""
    work_path: str = "runs"
    """Where storage_path is a URL: folder of this machine in which each run has the folder that it works in."""
    seed: NonNegative = 0
    """All random streams of the run follow from it."""
    algorithm: Literal["pebble", "prefppo"] = "pebble"
    """What learns: PEBBLE, on soft actor-critic, or PrefPPO, on proximal policy optimisation."""
    mode: Literal["preferences", "oracle"] = "preferences"
    """`oracle` trains on the environment's true reward: the upper bound."""
    total_steps: Positive = 1_000_000
    """Environment steps of the agent, over all environments, exploration included."""
    env: EnvOptions = EnvOptions()
    sac: SacOptions = SacOptions()
    ppo: PpoOptions = PpoOptions()
    explore: ExploreOptions = ExploreOptions()
    reward: RewardOptions = RewardOptions()
    queries: QueryOptions = QueryOptions()
    teacher: TeacherOptions = TeacherOptions()
    queue: QueueOptions = QueueOptions()
    people: PeopleOptions = PeopleOptions()
    rollout: RolloutOptions = RolloutOptions()
    resources: ResourceOptions = ResourceOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    tracking: TrackingOptions = TrackingOptions()

    @property
    def asks(self) -> bool:
        """Whether questions are asked: not where the true reward, or a fixed reward model, says what is good."""
        return self.mode == "preferences" and self.reward.from_ is None

    @property
    def asks_people(self) -> bool:
        """Whether people answer, who want to see clips."""
        return self.asks and self.teacher.name == "human"

    @property
    def shows_clips(self) -> bool:
        """Whether whoever answers sees clips: what it takes to draw them is recorded, and somebody draws them."""
        return self.asks_people or (self.mode == "preferences" and self.teacher.clips)

    @property
    def random_steps(self) -> int:
        """Environment steps with random actions, at the start; PrefPPO learns from none."""
        return self.explore.seed_steps if self.algorithm == "pebble" else 0

    @property
    def exploration_steps(self) -> int:
        """Environment steps before the first session."""
        return self.random_steps + self.explore.unsupervised_steps

    @property
    def unlabelled_steps(self) -> int:
        """Steps of a segment with all the context that it may be cut from."""
        return self.queries.segment_length + 2 * self.reward.crop

    def room_for_exploration(self, steps: int) -> int:
        """Rows the replay must hold for one of `steps`: what ends it may come some rounds late."""
        return steps + 4 * self.rollout.round_steps

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.resources.learners > 1 and 0.0 < self.resources.gpus_per_learner < 1.0:
            raise ValueError(
                f"resources.gpus_per_learner is {self.resources.gpus_per_learner:g} and resources.learners "
                f"{self.resources.learners}: learners that learn together cannot share a GPU (NCCL refuses it); "
                "several runs can, each with one learner"
            )
        if self.algorithm == "pebble":
            self._consistent_sac()
        else:
            self._consistent_ppo()
        if self.env.horizon is not None and self.queries.segment_length > self.env.horizon:
            raise ValueError(
                f"queries.segment_length ({self.queries.segment_length}) is longer than "
                f"env.horizon ({self.env.horizon}): no segment would fit an episode"
            )
        self._consistent_fixed_reward()
        self._consistent_few_shot()
        if self.reward.pretrain_epochs and (self.mode == "oracle" or not self.explore.unsupervised_steps):
            raise ValueError(
                "reward.pretrain_epochs wants the mode preferences and explore.unsupervised_steps: there is nothing to "
                "learn otherwise"
            )
        if self.reward.crop >= self.queries.segment_length:
            raise ValueError(
                f"reward.crop ({self.reward.crop}) leaves nothing of queries.segment_length "
                f"({self.queries.segment_length}): it must be smaller"
            )
        if self.reward.unlabelled and len(self.env.tasks) > 1:
            raise ValueError(
                "reward.unlabelled wants one task: pairs that nobody was asked about would be of different ones"
            )
        if self.shows_clips and len(self.env.tasks) > 1 and self.env.encoder is None:
            raise ValueError(
                "who looks at clips of several tasks wants env.encoder: without instructions nobody knows which it is"
            )
        if self.shows_clips and self.people.sentence and self.env.encoder is not None:
            raise ValueError(
                "people.sentence is one for all questions, and with env.encoder each has its own: give one of the two"
            )
        if self.reward.unlabelled and self.env.horizon is not None and self.env.horizon < self.unlabelled_steps:
            raise ValueError(
                f"reward.unlabelled wants queries.segment_length + 2 * reward.crop ({self.unlabelled_steps}) steps of "
                f"an episode, and env.horizon is {self.env.horizon}: lower one of the two"
            )
        if self.total_steps <= self.exploration_steps:
            phases = "explore.seed_steps + explore.unsupervised_steps"
            raise ValueError(
                f"total_steps ({self.total_steps}) leaves nothing after "
                f"{phases if self.random_steps else 'explore.unsupervised_steps'} ({self.exploration_steps})"
            )
        return self

    def _consistent_few_shot(self) -> None:
        reward = self.reward
        if reward.few_shot is None:
            return
        if not self.asks:
            raise ValueError("reward.few_shot wants labels: neither the mode oracle nor reward.from asks for any")
        for name in ("pretrain_epochs", "meta_interval"):
            if getattr(reward, name):
                raise ValueError(
                    f"reward.few_shot is where fits begin; reward.{name} would be lost, or begin elsewhere"
                )

    def _consistent_fixed_reward(self) -> None:
        if self.reward.from_ is None:
            return
        if self.mode == "oracle":
            raise ValueError("reward.from wants the mode preferences: the mode oracle learns from the true reward")
        for name in ("meta_interval", "pretrain_epochs"):
            if getattr(self.reward, name):
                raise ValueError(f"reward.from is a reward model that stays as it is; reward.{name} would change it")

    def _consistent_sac(self) -> None:
        sac = self.sac
        needed = self.room_for_exploration(self.exploration_steps)
        if sac.replay_capacity < needed:
            raise ValueError(
                f"sac.replay_capacity ({sac.replay_capacity}) is too small for exploration: at least {needed} rows"
            )
        self._divisible("sac.batch_size", sac.batch_size)
        if self.reward.meta_interval and sac.n_step > 1:
            raise ValueError(
                "reward.meta_interval wants sac.n_step 1: the critic's step is differentiated for one step"
            )
        if sac.recent_share and self.env.horizon is None:
            raise ValueError("sac.recent_share counts episodes by env.horizon: set that")
        widths = set(sac.critic_hidden or sac.hidden)
        if sac.critic_blocks and len(widths) != 1:
            raise ValueError("sac.critic_blocks wants one width for all layers: see sac.critic_hidden")
        if sac.log_std_min >= sac.log_std_max:
            raise ValueError(
                f"sac.log_std_min ({sac.log_std_min:g}) must lie below sac.log_std_max ({sac.log_std_max:g})"
            )

    def _consistent_ppo(self) -> None:
        if self.reward.meta_interval:
            raise ValueError("reward.meta_interval wants the algorithm pebble: prefppo has no critic of actions")
        if self.reward.pretrain_epochs:
            raise ValueError("reward.pretrain_epochs wants the algorithm pebble: prefppo keeps no explored transitions")
        self._divisible("ppo.batch_size", self.ppo.batch_size)
        if self.rollout.actors == 0 and self.resources.learners > 1:
            raise ValueError("rollout.actors is 0: the driver's environments would feed one learner at a time")
        if self.rollout.actors:
            self._divisible("rollout.actors", self.rollout.actors)
        if self.ppo.batch_size > self.rollout.round_steps:
            raise ValueError(
                f"ppo.batch_size ({self.ppo.batch_size}) is more than the {self.rollout.round_steps} steps of an "
                "iteration, rollout.fragment_length in each environment: lower it, or raise rollout.fragment_length, "
                "rollout.envs_per_actor or rollout.actors"
            )

    def _divisible(self, name: str, value: int) -> None:
        learners, parts = max(1, self.resources.learners), self.resources.gradient_parts
        if value % learners:
            raise ValueError(f"{name} ({value}) cannot be divided among {learners} learners: choose a multiple")
        if name.endswith("batch_size") and value // learners % parts:
            raise ValueError(
                f"{name} ({value}), of which each learner computes {value // learners}, is no "
                f"resources.gradient_parts ({parts}) equal parts"
            )
