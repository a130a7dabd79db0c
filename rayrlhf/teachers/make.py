"""From the options to a teacher."""

from rayrlhf.config import TeacherOptions
from rayrlhf.config.schema import TEACHERS
from rayrlhf.errors import UserError
from rayrlhf.teachers.mixture import MixedTeacher
from rayrlhf.teachers.protocol import Teacher
from rayrlhf.teachers.scripted import PRESETS, RandomTeacher, ScriptedTeacher, SilentTeacher
from rayrlhf.teachers.users import UsersTeacher, check_users_class


def make_teacher(options: TeacherOptions, seed: int) -> Teacher:
    """The teacher that `options` name. A class of the user's own is constructed as `Class(options, seed=seed)`.

    Raises:
        UserError: a parameter of the scripted teachers is set for a control, which has none; training would wait for
            the silent one for ever; nothing has that name; or a user's class cannot be imported or is no teacher.
        TeacherError: a user's class cannot be constructed. What its methods raise later is made one, too.
    """
    check_teacher(options)
    if options.name in PRESETS:
        return ScriptedTeacher(options, seed=seed)
    if options.name == "mixture":
        return MixedTeacher(options, seed=seed)
    if options.name not in TEACHERS:
        return UsersTeacher(options, seed)
    if options.name == "human":
        raise UserError("the teacher human is asked through a queue: use `rayrlhf train`, or give `train` its `people`")
    return RandomTeacher(seed=seed) if options.name == "random" else SilentTeacher()


def check_teacher(options: TeacherOptions) -> None:
    """Raises what `make_teacher` would raise, and makes none."""
    if options.name not in TEACHERS:
        check_users_class(options)
        return
    meaningless = ["clips"] * options.clips
    if options.name not in (*PRESETS, "mixture"):
        meaningless += [*options.overrides(), *["bpref_compat"] * options.bpref_compat]
    if meaningless:
        raise UserError(f"teacher.{meaningless[0]} means nothing to the {options.name} teacher: leave it out")
    if options.name == "silent" and options.wait:
        raise UserError("teacher.wait would wait for ever for the silent teacher: set it to false")
