"""From the options to a teacher."""

from rayrlhf.config import TeacherOptions
from rayrlhf.errors import UserError
from rayrlhf.teachers.protocol import Teacher
from rayrlhf.teachers.scripted import RandomTeacher, ScriptedTeacher, SilentTeacher, overrides


def make_teacher(options: TeacherOptions, seed: int) -> Teacher:
    """The teacher that `options` name.

    Raises:
        UserError: a parameter of the scripted teachers is set for one that has none, or training would wait for the
            silent one for ever.
    """
    if options.name not in ("random", "silent"):
        return ScriptedTeacher(options, seed=seed)
    if meaningless := [*overrides(options), *["bpref_compat"] * options.bpref_compat]:
        raise UserError(f"teacher.{meaningless[0]} means nothing to the {options.name} teacher: leave it out")
    if options.name == "silent" and options.wait:
        raise UserError("teacher.wait would wait for ever for the silent teacher: set it to false")
    return RandomTeacher(seed=seed) if options.name == "random" else SilentTeacher()
