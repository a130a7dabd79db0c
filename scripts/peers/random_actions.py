"""The plain environment alone, one of them in one process, with random actions: what all peers have in common."""

from program import Program  # isort: skip

from environment import HandlePressSide


def main() -> None:
    program = Program(__doc__)
    env = HandlePressSide()
    env.action_space.seed(program.seed)
    env.reset(seed=program.seed)
    with program.training():
        for _ in range(program.steps):
            *_, over, _ = env.step(env.action_space.sample())
            if over:
                env.reset()
    score = program.score(lambda _: env.action_space.sample())
    program.write(score, steps=program.steps, labels=0, packages=())


if __name__ == "__main__":
    main()
