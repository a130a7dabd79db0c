"""A dataset as many tasks, and the page about what was learnt over them."""

from collections.abc import Mapping
from typing import Any

import rayrlhf
from rayrlhf.config.meta import MetaOptions
from rayrlhf.config.schema import RewardOptions
from rayrlhf.errors import UserError
from rayrlhf.preferences.answers import Labels, labels_from
from rayrlhf.preferences.dataset import PreferenceDataset

_PAGE = """# Few-shot weights

An ensemble of {members} networks with learnt rates of adaptation, meta-trained on preferences by rayrlhf {version}
(Hejna & Sadigh 2022, arXiv 2212.03363).

- Data: `{dataset}`, {labels:,} labels of {all_tasks} draws, of which {held_out_tasks} were held out.
- Adaptation: {inner_steps} steps on {support} labels. Outer step {step:,} was the best by the held-out draws' loss.
- Accuracy on held-out draws: {accuracy:.1%} after adaptation, {accuracy_before:.1%} before; {untrained_accuracy:.1%}
  by untrained networks after the same adaptation. `metrics.json` has all looks.

```
{command}
```

made it, and this trains a policy that begins from it, where options and widths agree:

```
rayrlhf train CONFIG --reward.few_shot THIS_FOLDER
```
"""


def labels_by_session(dataset: PreferenceDataset) -> list[Labels]:
    """The labels of each session that has some, in order.

    Raises:
        UserError: nobody has answered anything.
    """
    tasks = [labels_from(*dataset.read_session(session)) for session in dataset.sessions()]
    found = [task for task in tasks if len(task)]
    if not found:
        raise UserError(f"{dataset.where} holds no labels: nobody has answered, or only with skips")
    return found


def few_shot_page(report: Mapping[str, Any], reward: RewardOptions, options: MetaOptions) -> str:
    """Markdown. `report` has `dataset`, `labels`, `tasks`, `held_out_tasks`, `step`, the accuracies and `command`."""
    return _PAGE.format(
        members=reward.members,
        version=rayrlhf.__version__,
        all_tasks=report["tasks"] + report["held_out_tasks"],
        support=options.support,
        inner_steps=options.inner_steps,
        **{name: value for name, value in report.items() if name not in ("looks", "tasks")},
    )
