"""From the options to a teacher."""

from rayrlhf.config import TeacherOptions
from rayrlhf.config.classes import imported
from rayrlhf.errors import UserError
from rayrlhf.teachers.protocol import Teacher
from rayrlhf.teachers.scripted import PRESETS, RandomTeacher, ScriptedTeacher, SilentTeacher, overrides


def make_teacher(options: TeacherOptions, seed: int) -> Teacher:
    """The teacher that `options` name. A class of the user's own is constructed as `Class(options, seed=seed)`.

    Raises:
        UserError: a parameter of the scripted teachers is set for a control, which has none; training would wait for
            the silent one for ever; or a user's class cannot be imported or is no teacher.
    """
    check_teacher(options)
    if options.name in PRESETS:
        return ScriptedTeacher(options, seed=seed)
    if ":" in options.name:
        teacher: Teacher = imported("teacher.name", options.name)(options, seed=seed)
        return teacher
    return RandomTeacher(seed=seed) if options.name == "random" else SilentTeacher()


def check_teacher(options: TeacherOptions) -> None:
    """Raises what `make_teacher` would raise, and makes none."""
    if ":" in options.name:
        found = imported("teacher.name", options.name)
        if missing := [method for method in ("ask", "collect") if not callable(getattr(found, method, None))]:
            raise UserError(f"teacher.name {options.name!r} is no teacher: it has no {' and no '.join(missing)}")
    if ":" in options.name or options.name in PRESETS:
        return
    if meaningless := [*overrides(options), *["bpref_compat"] * options.bpref_compat]:
        raise UserError(f"teacher.{meaningless[0]} means nothing to the {options.name} teacher: leave it out")
    if options.name == "silent" and options.wait:
        raise UserError("teacher.wait would wait for ever for the silent teacher: set it to false")
