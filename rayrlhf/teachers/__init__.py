"""Whoever answers queries: B-Pref's six scripted teachers, mixtures, two controls, and the protocol of all others."""

from rayrlhf.teachers.asynchronous import AsynchronousTeacher
from rayrlhf.teachers.immediate import ImmediateTeacher
from rayrlhf.teachers.make import make_teacher
from rayrlhf.teachers.mixture import MixedTeacher
from rayrlhf.teachers.protocol import Clips, Closes, Frames, Sees, Teacher
from rayrlhf.teachers.scripted import PRESETS, Parameters, RandomTeacher, ScriptedTeacher, SilentTeacher
from rayrlhf.teachers.users import TeacherError

__all__ = [
    "PRESETS",
    "AsynchronousTeacher",
    "Clips",
    "Closes",
    "Frames",
    "ImmediateTeacher",
    "MixedTeacher",
    "Parameters",
    "RandomTeacher",
    "ScriptedTeacher",
    "Sees",
    "SilentTeacher",
    "Teacher",
    "TeacherError",
    "make_teacher",
]
